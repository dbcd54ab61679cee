//! What the report says, and how it takes files from elsewhere.

use std::fs;

use super::{clean, csv, schema, summary, terminal, testdata};
use crate::report::figures::Figures;
use crate::results::Results;

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
fn files_that_are_none_of_ours_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    let refused = |content: &str| {
        fs::write(&path, content).unwrap();
        format!("{:#}", Results::read(&path).unwrap_err())
    };
    assert!(refused("no JSON").contains("has no results of rvmm bench compare"));
    assert!(refused("{}").contains("missing field `format`"));
    assert!(refused(r#"{"format": 2}"#).contains("has format 2, and this rvmm reads 1"));
    assert!(refused(r#"{"format": 1}"#).contains("missing field `version`"));
    assert!(
        format!("{:#}", Results::read(&folder.path().join("none")).unwrap_err()).contains("No such file")
    );
}
