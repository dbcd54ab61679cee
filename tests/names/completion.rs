//! Names complete in the shell.

use std::process::Command;

use skip::{Capability, has_program};

use super::Host;
use crate::support::kvm::require_kvm;

/// What bash offers for `line`, whose last word is being typed, after the completion script was read.
fn offered(host: &Host, line: &str) -> Vec<String> {
    let script = r#"
        source <(rvmm completions bash)
        COMP_WORDS=($1); [[ $1 == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMP_LINE=$1; COMP_POINT=${#1}
        function=$(complete -p rvmm | sed 's/.*-F \([^ ]*\).*/\1/')
        COMPREPLY=(); $function rvmm "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_rvmm")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash", line]).env("PATH", path);
    let output = bash.env("XDG_RUNTIME_DIR", host.runtime.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_the_names_of_vms_and_the_options_of_verbs() {
    require_kvm!();
    if !has_program(Capability::Programs, "bash") {
        return;
    }
    let host = Host::new();
    for id in ["web-1", "web-2", "db"] {
        host.detach("hlt-forever", id);
    }
    assert_eq!(offered(&host, "rvmm stop "), ["db", "web-1", "web-2"]);
    assert_eq!(offered(&host, "rvmm console w"), ["web-1", "web-2"]);
    assert_eq!(offered(&host, "rvmm rm db w"), ["web-1", "web-2"]);
    assert_eq!(offered(&host, "rvmm logs --follow d"), ["db"]);
    assert_eq!(offered(&host, "rvmm stop --time"), ["--timeout"]);
    assert!(offered(&host, "rvmm st").contains(&"stop".to_owned()));
    assert!(offered(&host, "rvmm --ker").contains(&"--kernel".to_owned()));
    assert_eq!(offered(&host, "rvmm snapshot w"), ["web-1", "web-2"]);
    assert_eq!(offered(&host, "rvmm snapshot ve"), ["verify"]);
    assert_eq!(offered(&host, "rvmm snapshot create d"), ["db"]);
    let folder = host.runtime.path().display();
    for words in ["snapshot web-1", "snapshot verify", "restore", "clone"] {
        assert_eq!(offered(&host, &format!("rvmm {words} {folder}/rv")), [format!("{folder}/rvmm")]);
    }
}
