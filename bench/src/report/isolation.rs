//! What was found of isolation, as tables and in words. A right means as much as the kernel that grants it, so each says whose that is.

use crate::results::{Answer, Contender, Isolation, Leak, Means};

use super::figures::Figures;
use super::tables::{Table, or_none};
use super::words::{self, NONE};

/// Before the table of kernels.
const CALLS: &str = "Host system calls are those that the instance's processes used from start to end, the runtime's own setting up \
    included. They are not those that the program inside could reach.";

/// Before the table of rights.
const WHOSE: &str = "In a kernel of its own, the program's rights end where that kernel ends: capabilities, device nodes, a panic, modules \
    and the clock are that kernel's, not the host's. What would hurt the host's kernel was not tried there: it follows from the program's \
    rights.";

/// The user-id map of a program whose users are those of its kernel.
const SAME_USERS: [&str; 3] = ["0", "0", "4294967295"];

/// Contenders whose isolation was looked at.
fn measured<'a>(figures: &Figures<'a>) -> impl Iterator<Item = (&'a Contender, &'a Isolation)> {
    figures.present().filter_map(|contender| Some((contender, contender.isolation.as_ref()?)))
}

/// A table with a row for each of [`measured`].
fn table(
    figures: &Figures<'_>,
    title: &str,
    head: &[&str],
    row: impl Fn(&Isolation) -> Option<Vec<String>>,
) -> Table {
    let rows = measured(figures).filter_map(|(contender, isolation)| {
        let mut cells = vec![contender.title.clone()];
        cells.extend(row(isolation)?);
        Some(cells)
    });
    Table::of_words(title, head, rows.collect())
}

/// Which kernel runs it.
pub(crate) fn kernels(figures: &Figures<'_>) -> Table {
    let row = |isolation: &Isolation| {
        let seccomp = isolation.seccomp.map(|mode| match mode {
            0 => "off".to_owned(),
            1 => "strict".to_owned(),
            2 => "filter".to_owned(),
            other => other.to_string(),
        });
        let gains = if isolation.no_new_privileges == Some(true) { ", no new rights" } else { "" };
        let calls = isolation.host_syscalls.as_ref();
        let users: Vec<_> = isolation.host_users.iter().take(8).map(|&id| user(id)).collect();
        Some(vec![
            isolation.kernel.clone(),
            format!("{}: {}", words::yes(isolation.host_kernel.yes), isolation.host_kernel.seen),
            calls.map_or_else(|| "not traced".to_owned(), |calls| calls.len().to_string()),
            or_none(seccomp) + gains,
            or_none(isolation.host_processes_filtered.map(|[with, all]| format!("{with} of {all}"))),
            users.join(", "),
        ])
    };
    let head = [
        "",
        "kernel seen",
        "is it the host's",
        "distinct host system calls",
        "seccomp inside",
        "host processes with a filter",
        "runs on the host as",
    ];
    table(figures, "Isolation: kernels", &head, row).noting(CALLS)
}

fn user(id: u32) -> String {
    if id == 0 { "root".to_owned() } else { format!("user id {id}") }
}

/// What the program inside may do and see.
pub(crate) fn rights(figures: &Figures<'_>) -> Table {
    let row = |isolation: &Isolation| {
        let whose = if isolation.host_kernel.yes { "the host's" } else { "its own" };
        let answer = |answer: &Answer| {
            let by = match answer.by {
                Means::Tried => "tried",
                Means::Rights => "by rights",
                Means::Compared => "compared",
            };
            format!("{}, {whose} ({by})", words::yes(answer.yes))
        };
        let count = |list: &[String]| {
            let of = if isolation.host_kernel.yes { "" } else { ", in its own kernel" };
            format!("{}{of}", list.len())
        };
        let leaks = isolation.leaks.iter().filter(|leak| leak.leaks).count();
        let of = isolation.leaks.len();
        Some(vec![
            count(&isolation.capabilities),
            users(isolation, &isolation.uid_map),
            if of == 0 { NONE.to_owned() } else { format!("{leaks} of {of}") },
            count(&isolation.devices),
            answer(&isolation.panic),
            answer(&isolation.load_module),
            answer(&isolation.set_clock),
        ])
    };
    let head = [
        "",
        "capabilities",
        "user-id map",
        "host facts that leak",
        "device nodes",
        "panic of which kernel",
        "load a module",
        "set the clock",
    ];
    table(figures, "Isolation: rights and leaks", &head, row).noting(WHOSE)
}

/// A map of user or group ids.
fn users(isolation: &Isolation, map: &str) -> String {
    let map: Vec<_> = map.split_whitespace().collect();
    match () {
        () if map != SAME_USERS => map.join(" "),
        () if isolation.host_kernel.yes => "root is the host's root".to_owned(),
        () => "root is its own kernel's root".to_owned(),
    }
}

/// Which facts of the host leak into which contender.
pub(crate) fn leaks(figures: &Figures<'_>) -> Table {
    let row = |isolation: &Isolation| {
        let leaks = isolation.leaks.iter();
        let seen = |leak: &Leak| {
            if leak.seen.is_empty() { leak.fact.clone() } else { format!("{} ({})", leak.fact, leak.seen) }
        };
        let found = leaks.clone().filter(|leak| leak.leaks).map(seen);
        let hidden = leaks.filter(|leak| !leak.leaks).map(|leak| leak.fact.clone());
        let cell = |facts: Vec<String>| if facts.is_empty() { NONE.to_owned() } else { facts.join("; ") };
        (!isolation.leaks.is_empty()).then(|| vec![cell(found.collect()), cell(hidden.collect())])
    };
    table(figures, "Isolation: facts of the host", &["", "seen inside", "not seen"], row)
}

/// Capabilities and the like by name.
pub(crate) fn lists(figures: &Figures<'_>) -> Table {
    let row = |isolation: &Isolation| {
        let none = |list: &[String]| if list.is_empty() { NONE.to_owned() } else { list.join(", ") };
        let kernel = if isolation.host_kernel.yes { "the host's" } else { "its own" };
        let groups = isolation.gid_map.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(vec![kernel.to_owned(), none(&isolation.capabilities), none(&isolation.devices), groups])
    };
    let head = ["", "in which kernel", "capabilities", "device nodes", "group-id map"];
    table(figures, "Capabilities, device nodes, groups", &head, row)
}

/// System calls by name.
pub(crate) fn calls(figures: &Figures<'_>) -> Table {
    let row = |isolation: &Isolation| {
        let calls = isolation.host_syscalls.as_ref().filter(|calls| !calls.is_empty())?;
        Some(vec![calls.join(", ")])
    };
    table(figures, "System calls that the host's kernel served", &["", "names"], row).noting(CALLS)
}

/// In words.
pub(crate) fn sentences(figures: &Figures<'_>) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut say = |before: &str, fit: &dyn Fn(&Isolation) -> bool| {
        let titles = measured(figures).filter(|(_, isolation)| fit(isolation));
        let titles: Vec<_> = titles.map(|(contender, _)| &contender.title).collect();
        if !titles.is_empty() {
            sentences.push(format!("{before}: {}.", words::list(&titles)));
        }
    };
    let can = |answer: &Answer, by: Means| answer.yes && answer.by == by;
    say("The program inside sees the host's kernel", &|isolation| isolation.host_kernel.yes);
    say("It sees another one", &|isolation| !isolation.host_kernel.yes);
    say("It could bring down the host's kernel, by its rights; that was not tried", &|isolation| {
        isolation.host_kernel.yes && can(&isolation.panic, Means::Rights)
    });
    say("It can bring down the kernel that it sees, which is its own", &|isolation| {
        !isolation.host_kernel.yes && isolation.panic.yes
    });
    let leaks = measured(figures).filter(|(_, isolation)| !isolation.leaks.is_empty());
    let mut leaks: Vec<_> = leaks
        .map(|(contender, isolation)| {
            let found = isolation.leaks.iter().filter(|leak| leak.leaks).count();
            (found, isolation.leaks.len(), &contender.title)
        })
        .collect();
    leaks.sort();
    if let [(fewest, _, first), .., (most, of, last)] = leaks.as_slice() {
        sentences.push(format!("Of the {of} facts of the host that it looked for, it found between {fewest} ({first}) and {most} ({last})."));
    }
    sentences
}
