//! State files that someone damaged, or made to do harm: the checksum is no protection from them.

use super::seal::HEADER_SIZE;
use super::state::MAX_SECTION;
use super::*;

type Change = fn(&mut StateV2);

/// A state file with `change` made to its state, and a right checksum.
fn sealed(change: impl FnOnce(&mut StateV2)) -> Vec<u8> {
    let mut state = state();
    change(&mut state);
    state.encode().unwrap().0
}

fn refusal(bytes: &[u8]) -> String {
    StateV2::decode(bytes).unwrap_err().to_string()
}

#[test]
fn every_flipped_byte_and_every_cut_is_an_error() {
    let bytes = sealed(|_| {});
    assert!(StateV2::decode(&bytes).is_ok());
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            assert!(StateV2::decode(&bytes).is_err(), "byte {at} ^ {flip:#x}");
        }
        assert!(StateV2::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn every_flipped_byte_and_every_cut_under_a_right_checksum_is_no_panic() {
    let bytes = sealed(|_| {});
    let body = &bytes[HEADER_SIZE..];
    for at in 0..body.len() {
        for flip in [1, 0x40, 0x80, 0xff] {
            let mut body = body.to_vec();
            body[at] ^= flip;
            // It may well be another state that holds together; a name is as good as another.
            let _ = StateV2::decode(&seal::seal(&body).0);
        }
        assert!(StateV2::decode(&seal::seal(&body[..at]).0).is_err(), "cut at {at}");
    }
    assert!(refusal(&seal::seal(&[body, b"x"].concat()).0).contains("1 bytes follow"));
}

#[test]
fn what_contradicts_itself_is_refused_with_the_reason() {
    let base = |state: &StateV2| BaseV1 {
        id: state.id,
        seal: [0; 32],
        path: Vec::new(),
        absolute: Vec::new(),
        memory: Vec::new(),
    };
    let cases: [(Change, &str); 9] = [
        (|state| state.memory.page_size = 0, "pages of 0 bytes"),
        (|state| state.memory.regions[0].len = u64::MAX, "memory is not that of"),
        (|state| state.memory.regions[0].address = 4096, "memory is not that of"),
        (|state| state.memory.regions.clear(), "memory is not that of"),
        (|state| state.memory.pages = Some(vec![(0, 1)]), "no base"),
        (|state| state.config = "{}x".to_owned(), "configuration"),
        (|state| state.config = state.config.replace("\"mem_size_mib\":4", "\"mem_size_mib\":5"), "5 MiB"),
        (|state| state.config = state.config.replace(":4,", ":18446744073709551615,"), "MiB"),
        (|state| state.sections.push(state.sections[0].clone()), "two sections \"vcpus\""),
    ];
    for (change, why) in cases {
        let error = refusal(&sealed(change));
        assert!(error.contains(why), "{error}");
    }
    let with_base = refusal(&sealed(|state| state.base = Some(base(state))));
    assert!(with_base.contains("all pages, and a base"), "{with_base}");
    for pages in [vec![(0, 1025)], vec![(3, 1), (1, 1)], vec![(u64::MAX, u64::MAX)], vec![(0, 0)]] {
        let error = refusal(&sealed(|state| {
            state.base = Some(base(state));
            state.memory.pages = Some(pages);
        }));
        assert!(error.contains("list of pages"), "{error}");
    }
}

#[test]
fn lists_longer_than_there_can_be_are_refused() {
    let disk = DiskV2 {
        drive_id: String::new(),
        size: 0,
        modified: 0,
        is_read_only: false,
        device: 0,
        inode: 0,
        included: None,
    };
    for (more, is_read) in [(0, true), (1, false)] {
        for bytes in [
            sealed(|state| state.disks = vec![disk.clone(); 256 + more]),
            sealed(|state| state.sections = vec![SectionV2::of("", 0, &()).unwrap(); 256 + more]),
            sealed(|state| state.memory.pages = Some(vec![(0, 1); MAX_RANGES + more])),
        ] {
            // What is read may contradict itself.
            let error = StateV2::decode(&bytes).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(!error.contains("does not have the form"), is_read, "{error:?}");
        }
    }
}

#[test]
fn sections_are_what_was_asked_for_or_an_error() {
    let mut state = state();
    let error = state.section::<Vec<u32>>("devices", 1).unwrap_err().to_string();
    assert!(error.contains("no section \"devices\""), "{error}");
    let error = state.section::<Vec<u32>>("vcpus", 2).unwrap_err().to_string();
    assert!(error.contains("version 1") && error.contains("knows 2"), "{error}");
    assert!(state.section::<u8>("vcpus", 1).unwrap_err().to_string().contains("follow the end"));
    state.sections[0].bytes.pop();
    assert!(state.section::<Vec<u32>>("vcpus", 1).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn a_section_that_is_too_long_is_neither_written_nor_read() {
    // Its length takes four bytes more.
    let longest = vec![1_u8; MAX_SECTION - 4];
    let mut state = state();
    state.sections = vec![SectionV2::of("devices", 1, &longest).unwrap()];
    assert_eq!(state.section::<Vec<u8>>("devices", 1).unwrap(), longest);
    let longer = [&longest[..], &[1]].concat();
    let written = SectionV2::of("devices", 1, &longer).unwrap_err();
    assert!(written.to_string().contains("section \"devices\" of 8388609 bytes"), "{written}");
    state.sections[0].bytes = postcard::to_stdvec(&longer).unwrap();
    assert_eq!(state.section::<Vec<u8>>("devices", 1).unwrap_err(), written);
}

#[test]
fn a_file_that_is_too_long_is_not_read() {
    let (_outer, dir) = place();
    full(&dir, &memory(&[]));
    let lengthen = |name: &str, len| {
        fs::File::options().write(true).open(dir.join(name)).unwrap().set_len(len).unwrap();
    };
    lengthen("manifest.json", (1 << 20) + 1);
    let error = Manifest::read(&dir).unwrap_err().to_string();
    assert!(error.contains("manifest.json: longer than 1048576 bytes"), "{error}");
    // Restoring does not need it.
    Folder::open(&dir).unwrap();
    lengthen("state", 4 << 30);
    let error = Folder::open(&dir).unwrap_err().to_string();
    assert!(error.contains("state: longer than 67108864 bytes"), "{error}");
}

#[test]
fn an_unknown_section_is_refused_only_if_it_is_required() {
    let mut state = state();
    state.sections.push(SectionV2 { is_required: false, ..SectionV2::of("later", 1, &()).unwrap() });
    state.check_required(&["vcpus"]).unwrap();
    state.sections[1].is_required = true;
    let error = state.check_required(&["vcpus"]).unwrap_err().to_string();
    assert!(error.contains("needs section \"later\""), "{error}");
}
