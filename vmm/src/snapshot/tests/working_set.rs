//! Recording what a restored guest used, and bringing it in for the next.

use super::*;

fn pages(offsets: &[u64]) -> Pages {
    Pages::of(offsets.iter().map(|offset| *offset..offset + PAGE_SIZE).collect())
}

#[test]
fn what_one_guest_used_is_there_for_the_next_before_it_asks() {
    let (_outer, dir) = place();
    let used: Vec<_> = (0..200).map(|page| (page * PAGE_SIZE, 1)).collect();
    full(&dir, &memory(&used));
    let folder = Folder::open(&dir).unwrap();
    assert_eq!(read_working_set(&folder).unwrap(), None);

    let first = restored(&dir);
    assert!(resident(&first).unwrap().is_empty());
    for page in [3, 150] {
        assert_eq!(byte(&first, page * PAGE_SIZE), 1);
    }
    let recorded = resident(&first).unwrap();
    assert!(pages(&[3 * PAGE_SIZE, 150 * PAGE_SIZE]).without(&recorded).is_empty(), "{recorded:?}");
    write_working_set(&folder, recorded.clone()).unwrap();
    assert_eq!(names(&dir), ["manifest.json", "memory", "state", "working-set"]);

    let next = restored(&dir);
    let hint = read_working_set(&folder).unwrap().unwrap();
    assert_eq!(hint, recorded);
    prefault_beside(&next, hint.clone()).unwrap().join().unwrap();
    assert!(hint.without(&resident(&next).unwrap()).is_empty());
    assert!(written(&next).unwrap().is_empty(), "they stay shared");
    // All of it, holes too.
    let all = Pages::all(MIB << 20);
    prefault(&next, &all).unwrap();
    assert_eq!(resident(&next).unwrap(), all);
    verify(&dir).unwrap();
}

#[test]
fn one_that_is_damaged_or_of_another_snapshot_is_refused() {
    let (outer, dir) = place();
    let other = outer.path().join("other");
    full(&dir, &memory(&[]));
    full(&other, &memory(&[]));
    let [folder, another] = [&dir, &other].map(|dir| Folder::open(dir).unwrap());
    write_working_set(&folder, pages(&[0, 8 * PAGE_SIZE])).unwrap();
    write_working_set(&folder, pages(&[0])).unwrap();
    assert_eq!(read_working_set(&folder).unwrap(), Some(pages(&[0])));
    let path = other.join("working-set");
    fs::copy(dir.join("working-set"), &path).unwrap();
    assert!(read_working_set(&another).unwrap_err().to_string().contains("another snapshot"));
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        assert!(read_working_set(&another).is_err(), "byte {at}");
    }
    let body = postcard::to_stdvec(&(folder.state.id, vec![(0_u64, MIB << 20)])).unwrap();
    fs::write(dir.join("working-set"), seal::seal(seal::WORKING_SET, &body).0).unwrap();
    assert!(read_working_set(&folder).unwrap_err().to_string().contains("outside of memory"));
}
