//! What the report says, and how it takes files from elsewhere.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::{clean, csv, figures, isolation, schema, summary, terminal, testdata};
use crate::args::ReportArgs;
use crate::report::figures::Figures;
use crate::results::{Means, Results};

#[test]
fn the_committed_schema_is_that_of_the_results() {
    let committed = include_str!("../../../docs/bench.schema.json");
    assert_eq!(committed, schema::text().unwrap(), "rvmm bench schema > docs/bench.schema.json");
}

#[test]
fn the_terminal_says_warning_definition_and_counts_first() {
    let results = testdata::invented();
    let text = terminal::text(&results, 140);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(format!("warning: {}", results.host.warning().unwrap()).as_str()));
    assert_eq!(lines.next(), Some(results.definition.as_str()));
    for word in [
        "runs",
        "p50",
        "p90",
        "p99",
        "min",
        "ratio to runc",
        "not here: ",
        "to repeat it: rvmm bench compare",
    ] {
        assert!(text.contains(word), "{word}");
    }
    for contender in &results.contenders {
        assert!(text.contains(&contender.title), "{}", contender.title);
    }
}

#[test]
fn text_of_others_does_not_drive_the_terminal() {
    let mut results = testdata::invented();
    results.contenders[0].title = "a\u{1b}[2J\rb\u{202e}".to_owned();
    results.contenders[0].errors.push("x\u{9b}\n\u{7}".repeat(2000));
    let text = terminal::text(&clean::cleaned(&results).unwrap(), 80);
    assert!(text.contains("a\\u{1b}[2J"), "the first contender's title is there, spelled out");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n') && !text.contains('\u{202e}'));
    assert!(text.len() < 100_000, "{}", text.len());
}

#[test]
fn ratios_are_to_the_process_where_runc_is_not_there() {
    let mut results = testdata::invented();
    assert_eq!(Figures::new(&results).yardstick.unwrap().name, "runc");
    results.contenders.retain(|contender| contender.name != "runc");
    let words = Figures::new(&results).yardstick_words().unwrap();
    assert_eq!(words, "plain process, for runc was not measured");
    assert!(terminal::text(&results, 100).contains(&words));
}

fn said(results: &Results) -> String {
    summary::summary(&Figures::new(results))
        .into_iter()
        .flat_map(|paragraph| paragraph.sentences)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn words_do_not_tell_apart_what_overlaps() {
    let mut results = testdata::invented();
    let runc = results.contenders.iter().find(|contender| contender.name == "runc").unwrap().start.clone();
    let crun = results.contenders.iter_mut().find(|contender| contender.name == "crun").unwrap();
    crun.start = runc;
    for (start, at) in crun.start.iter_mut().zip(0..) {
        start.marker *= if at % 2 == 0 { 1.1 } else { 0.9 };
    }
    let title = crun.title.clone();
    let said = said(&results);
    let line = said.lines().find(|line| line.starts_with("Not told apart from runc")).unwrap();
    assert!(line.contains(&title), "{line}");
}

#[test]
fn words_are_said_only_of_figures_that_are_there() {
    let mut results = testdata::invented();
    for contender in &mut results.contenders {
        contender.start.truncate(2);
        (contender.memory, contender.density, contender.isolation, contender.portability) =
            (None, None, None, None);
        contender.work.clear();
    }
    let said = said(&results);
    assert!(said.contains("fewer than 5 runs"), "{said}");
    for absent in ["memory", "distinct", "side by side", "Faster", "Slower", "Not told apart"] {
        assert!(!said.contains(absent), "{absent}: {said}");
    }
}

fn named<'a>(results: &'a mut Results, name: &str) -> &'a mut crate::results::Contender {
    results.contenders.iter_mut().find(|contender| contender.name == name).unwrap()
}

#[test]
fn words_on_work_name_only_who_is_told_apart() {
    let mut results = testdata::invented();
    for (name, samples) in [
        ("process", [100.0, 100.0, 100.0, 100.0, 100.0]),
        ("runc", [40.0, 41.0, 42.0, 43.0, 44.0]),
        ("crun", [30.0, 300.0, 20.0, 100.0, 90.0]),
    ] {
        let contender = named(&mut results, name);
        contender.work.truncate(1);
        (contender.work[0].samples, contender.work[0].more_is_better) = (samples.to_vec(), true);
    }
    results.contenders.retain(|contender| ["process", "runc", "crun"].contains(&contender.name.as_str()));
    let work = |results: &Results| {
        let of_work = summary::summary(&Figures::new(results)).into_iter().find(|part| part.topic == "Work");
        of_work.unwrap().sentences.join(" ")
    };
    let told = work(&results);
    assert!(told.contains("slower in runc 0.420."), "{told}");
    assert!(
        !told.contains("crun")
            && told.ends_with("The others could not be told apart from the plain process.")
    );
    for contender in &mut results.contenders {
        contender.work[0].samples.truncate(4);
    }
    assert_eq!(work(&results), "With fewer than 5 rounds in common nobody is told apart.");
}

#[test]
fn rights_say_whose_kernel_they_are_of() {
    let mut results = testdata::invented();
    for (name, by) in [("process", Means::Rights), ("rvmm", Means::Tried)] {
        let isolation = named(&mut results, name).isolation.as_mut().unwrap();
        (isolation.panic.yes, isolation.panic.by) = (true, by);
        isolation.uid_map = "         0          0 4294967295".to_owned();
    }
    let own = named(&mut results, "rvmm").title.clone();
    let rights = isolation::rights(&Figures::new(&results));
    let row = |title: &str| rights.rows.iter().find(|row| row[0] == title).unwrap().join(" | ");
    let (process, rvmm) = (row("plain process"), row(&own));
    assert!(process.contains("yes, the host's (by rights)") && process.contains("root is the host's root"));
    assert!(rvmm.contains("yes, its own (tried)") && rvmm.contains(", in its own kernel"), "{rvmm}");
    assert!(!rvmm.contains("the host's"), "{rvmm}");
    let said = said(&results);
    let down = said.lines().find(|line| line.starts_with("It could bring down the host's kernel")).unwrap();
    assert!(down.contains("plain process") && !down.contains(&own), "{down}");
    assert!(!said.contains("system calls to an instance"), "{said}");
}

#[test]
fn the_first_part_of_a_start_is_not_all_the_vmm() {
    let results = testdata::invented();
    let text = terminal::text(&results, 200);
    assert!(text.contains("VMM, until the kernel's clock runs"), "{text}");
    assert!(text.contains("a compressed kernel has unpacked itself by then"), "{text}");
}

#[test]
fn csv_has_a_line_for_each_sample() {
    let results = testdata::invented();
    let mut lines = Vec::new();
    csv::write(&results, &mut lines).unwrap();
    let text = String::from_utf8(lines).unwrap();
    assert_eq!(text.lines().next(), Some("contender,measure,metric,unit,run,value"));
    let first = results.contenders[0].start[0].marker;
    assert!(text.contains(&format!("process,start,marker,ms,1,{first}\n")), "{text}");
    let markers = text.lines().filter(|line| line.contains(",start,marker,")).count();
    assert_eq!(markers, results.contenders.iter().map(|contender| contender.start.len()).sum::<usize>());
}

#[test]
fn what_is_not_a_number_survives_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    let mut results = testdata::invented();
    results.contenders[0].start[0].marker = f64::NAN;
    fs::write(&path, serde_json::to_vec(&results).unwrap()).unwrap();
    assert!(Results::read(&path).unwrap().contenders[0].start[0].marker.is_nan());
}

#[test]
fn a_device_without_end_is_refused() {
    let error = Results::read(Path::new("/dev/zero")).unwrap_err().to_string();
    assert_eq!(error, "/dev/zero: more than 64 MiB, too much for results of a comparison");
}

#[test]
fn what_a_parser_says_of_a_file_does_not_drive_the_terminal() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut value = serde_json::to_value(testdata::invented()).unwrap();
    value["\u{1b}[2Junknown"] = 1.into();
    file.write_all(&serde_json::to_vec(&value).unwrap()).unwrap();
    let args = ReportArgs { file: file.path().to_owned(), html: None, csv: None };
    let error = super::run(&args).unwrap_err().to_string();
    assert!(error.contains("\\u{1b}[2Junknown") && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn what_is_left_out_is_no_failure_and_told_once() {
    let mut results = testdata::invented();
    for name in ["runc", "crun"] {
        let contender = named(&mut results, name);
        contender.errors.clear();
        contender.work[1].samples.clear();
        contender.work[1].error = Some("it takes root rights".to_owned());
    }
    let work = figures::work_title(&named(&mut results, "runc").work[1].name);
    let said = said(&results);
    assert!(said.contains(&format!("Left out: {work} of runc and crun (it takes root rights).")), "{said}");
    let failed = said.lines().find(|line| line.starts_with("Something failed with")).unwrap_or_default();
    assert!(!failed.contains("runc") && !failed.contains("crun"), "{failed}");
    let in_table_and_words = terminal::text(&results, 400).matches("it takes root rights").count();
    assert_eq!(in_table_and_words, 2, "once in each");
}

#[test]
fn cells_say_in_words_what_a_figure_would_hide() {
    let mut results = testdata::invented();
    (results.host.emulated, results.host.kvm.hardware) = (true, true);
    let runc = named(&mut results, "runc");
    runc.isolation.as_mut().unwrap().host_users = vec![0, 65534];
    runc.density.as_mut().unwrap().steps[0].host_memory = -4096;
    let portability = runc.portability.as_mut().unwrap();
    (portability.without_root, portability.without_root_error) = (None, Some("no user to be".to_owned()));
    let text = terminal::text(&results, 400);
    for words in [
        "root, user id 65534",
        "  noise ",
        "could not be tried: no user to be",
        "by hardware that is emulated",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn narrow_lines_do_not_break_a_figure() {
    let text = terminal::text(&testdata::invented(), 80);
    let (_, starts) = text.split_once("\nStart\n").unwrap();
    let starts: Vec<_> = starts.split("\n\n").next().unwrap().lines().collect();
    assert!(starts.iter().all(|line| line.chars().count() <= 80), "{starts:#?}");
    for line in starts.iter().skip(3) {
        let first = line.split_whitespace().next().unwrap_or_default();
        assert!(!["ms", "s", ")"].contains(&first) && !first.starts_with('–'), "{starts:#?}");
    }
    assert!(starts.iter().any(|line| line.starts_with("firecracker ")), "{starts:#?}");
    assert!(text.contains("rvmm-restored: "), "the names are explained");
}

#[test]
fn files_that_are_none_of_ours_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    let refused = |content: &str| {
        fs::write(&path, content).unwrap();
        format!("{:#}", Results::read(&path).unwrap_err())
    };
    assert!(refused("no JSON").contains("has no results of rvmm bench compare"));
    assert!(refused("{}").contains("it names no format"));
    for format in ["0", "2", "-1", "1.5"] {
        let words = format!("is of format {format}: this rvmm reads 1");
        assert!(refused(&format!(r#"{{"format": {format}}}"#)).contains(&words));
    }
    assert!(refused(r#"{"format": 1}"#).contains("missing field `version`"));
    assert!(
        format!("{:#}", Results::read(&folder.path().join("none")).unwrap_err()).contains("No such file")
    );
}
