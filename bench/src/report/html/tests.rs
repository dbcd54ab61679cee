//! What a reader's browser gets.

use super::page;
use crate::report::{clean, testdata};

/// Elements that have no end.
const VOID: [&str; 5] = ["meta", "!DOCTYPE", "br", "hr", "input"];

/// Checks that each element ends, in the right order.
fn assert_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some((_, tail)) = rest.split_once('<') {
        let (tag, after) = tail.split_once('>').unwrap_or_else(|| panic!("an open tag: {tail}"));
        rest = after;
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        assert!(!tag.contains('<'), "a tag in a tag: {tag}");
        assert_eq!(tag.matches('"').count() % 2, 0, "an open quote: {tag}");
        match tag {
            _ if tag.starts_with('/') => {
                assert_eq!(open.pop(), Some(name), "{tag}");
            }
            _ if tag.ends_with('/') || VOID.contains(&name) => {}
            _ => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_page_is_well_formed_and_refers_to_nothing_outside() {
    let page = page(&clean::cleaned(&testdata::invented()).unwrap()).unwrap();
    assert_well_formed(&page);
    for outside in ["http:", "https:", "src=", "url(", "@import", "<link", "<script", "<iframe", "<object"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for section in [
        "summary",
        "start",
        "memory",
        "density",
        "work",
        "isolation",
        "portability",
        "absent",
        "host",
        "repeat",
    ] {
        assert!(page.contains(&format!("<section id=\"{section}\"")), "{section}");
    }
    assert_eq!(page.matches("role=\"img\"").count() % 2, 0, "each chart is there for both widths");
}

#[test]
fn the_warning_is_the_first_line() {
    let results = testdata::invented();
    let warning = results.host.warning().unwrap();
    let page = page(&results).unwrap();
    let body = page.split_once("<main>").unwrap().1;
    let text = body.split_once("</strong>").unwrap().1;
    assert!(text.starts_with(&warning), "{}", &text[..200]);
}

#[test]
fn what_is_in_the_results_does_not_become_part_of_the_page() {
    let evil = "\"><script>alert(1)</script>'&amp;\u{202e}\u{1b}[2J";
    let mut value = serde_json::to_value(testdata::invented()).unwrap();
    poison(&mut value, evil);
    let results = clean::cleaned(&serde_json::from_value(value).unwrap()).unwrap();
    let page = page(&results).unwrap();
    assert_well_formed(&page);
    assert!(!page.contains("<script") && !page.contains('\u{202e}') && !page.contains('\u{1b}'));
    assert!(page.contains("&lt;script&gt;alert(1)"));
}

/// Appends `evil` to every text that is not one of a few words.
fn poison(value: &mut serde_json::Value, evil: &str) {
    match value {
        serde_json::Value::String(text) => text.push_str(evil),
        serde_json::Value::Array(entries) => entries.iter_mut().for_each(|entry| poison(entry, evil)),
        serde_json::Value::Object(fields) => {
            fields
                .iter_mut()
                .filter(|(name, _)| !matches!(name.as_str(), "kind" | "by" | "name"))
                .for_each(|(_, field)| poison(field, evil));
        }
        _ => {}
    }
}

#[test]
fn a_page_of_nothing_says_so() {
    let mut results = testdata::invented();
    results.contenders.clear();
    let page = page(&results).unwrap();
    assert_well_formed(&page);
    assert!(page.contains("No VM started."));
}

#[test]
fn odd_figures_can_be_drawn() {
    for odd in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300, 1e-300] {
        let mut results = testdata::invented();
        for contender in &mut results.contenders {
            for start in &mut contender.start {
                (start.marker, start.end, start.cpu) = (odd, odd, odd);
                start.parts.iter_mut().for_each(|parts| parts.kernel = odd);
            }
            for step in contender.density.iter_mut().flat_map(|density| &mut density.steps) {
                (step.sequential, step.parallel, step.memory, step.instances) =
                    (odd, odd, u64::MAX, usize::MAX);
            }
            contender.work.iter_mut().for_each(|work| work.samples.fill(odd));
            contender.memory.iter_mut().for_each(|memory| (memory.guest, memory.total) = (u64::MAX, 0));
        }
        assert_well_formed(&page(&clean::cleaned(&results).unwrap()).unwrap());
    }
}
