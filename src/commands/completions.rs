//! `rvmm completions SHELL`

use clap_complete::Shell;

use super::{Outcome, print};
use crate::args::{self, CompletionsArgs};

/// Prints the completion script of a shell.
pub(crate) fn run(args: &CompletionsArgs) -> Outcome {
    print(&script(args.shell))
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "rvmm", &mut script);
    let verbs: Vec<String> = by_name().collect();
    match shell {
        Shell::Bash => script.extend(bash(&verbs.join("|"), &below(SNAPSHOT)).into_bytes()),
        Shell::Zsh => script = zsh(&String::from_utf8_lossy(&script)).into_bytes(),
        Shell::Fish => script.extend(fish(&verbs.join(" ")).into_bytes()),
        // Without names.
        _ => {}
    }
    script
}

/// The verb that takes a name, or a verb of its own, and then a folder.
const SNAPSHOT: &str = "snapshot";

/// The verbs that take names of VMs and nothing else.
fn by_name() -> impl Iterator<Item = String> {
    let takes_names = |verb: &clap::Command| {
        verb.get_positionals().any(|argument| {
            argument.get_value_names().is_some_and(|names| names.iter().any(|name| *name == args::ID))
        })
    };
    let verbs: Vec<String> = args::command()
        .get_subcommands()
        .filter(|verb| takes_names(verb) && verb.get_name() != SNAPSHOT)
        .map(|verb| verb.get_name().to_owned())
        .collect();
    verbs.into_iter()
}

/// The verbs below the verb `above`.
fn below(above: &str) -> String {
    let command = args::command();
    let below = command.find_subcommand(above).into_iter().flat_map(clap::Command::get_subcommands);
    below.map(clap::Command::get_name).collect::<Vec<_>>().join(" ")
}

/// What completes names in bash, and folders of snapshots, in front of what is generated. `below` are the verbs below that of
/// snapshots.
fn bash(verbs: &str, below: &str) -> String {
    format!(
        r#"
_rvmm_or_names() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}"
    case "${{COMP_WORDS[1]}}" in
        {verbs})
            if [[ $COMP_CWORD -ge 2 && $current != -* && ${{COMP_WORDS[COMP_CWORD-1]}} != -?-* ]]; then
                COMPREPLY=( $(compgen -W "$("${{COMP_WORDS[0]}}" ps --names 2>/dev/null)" -- "$current") )
                return
            fi
            ;;
        snapshot)
            if [[ $current != -* && ${{COMP_WORDS[COMP_CWORD-1]}} != -* ]]; then
                case "$COMP_CWORD,${{COMP_WORDS[2]}}" in
                    2,*) COMPREPLY=( $(compgen -W "$("${{COMP_WORDS[0]}}" ps --names 2>/dev/null) {below}" -- "$current") ) ;;
                    3,create) COMPREPLY=( $(compgen -W "$("${{COMP_WORDS[0]}}" ps --names 2>/dev/null)" -- "$current") ) ;;
                    *) compopt -o filenames; COMPREPLY=( $(compgen -d -- "$current") ) ;;
                esac
                return
            fi
            ;;
        restore|clone)
            if [[ $current != -* && ${{COMP_WORDS[COMP_CWORD-1]}} != -* ]]; then
                compopt -o filenames; COMPREPLY=( $(compgen -d -- "$current") )
                return
            fi
            ;;
    esac
    _rvmm "$@"
}}
complete -F _rvmm_or_names -o bashdefault -o default rvmm
"#
    )
}

/// The script for zsh, with names where it would complete files.
fn zsh(script: &str) -> String {
    let names = "\n_rvmm_names() {\n    local -a names\n    names=(${(f)\"$(rvmm ps --names 2>/dev/null)\"})\n    \
                 _describe 'VM' names\n}\n";
    let mut completed = String::new();
    for line in script.lines() {
        let is_name = line.contains("id -- Name of the VM") || line.contains("ids -- Names of VMs");
        completed += &if is_name { line.replace(":_default'", ":_rvmm_names'") } else { line.to_owned() };
        completed.push('\n');
        if line.starts_with("autoload") {
            completed += names;
        }
    }
    completed
}

/// What completes names in fish.
fn fish(verbs: &str) -> String {
    let names = "-f -a \"(rvmm ps --names 2>/dev/null)\"";
    format!(
        "complete -c rvmm -n \"__fish_seen_subcommand_from {verbs}\" {names}\n\
         complete -c rvmm -n \"__fish_seen_subcommand_from {SNAPSHOT}\" {names}\n\
         complete -c rvmm -n \"__fish_seen_subcommand_from {SNAPSHOT}\" -a \"(__fish_complete_directories)\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_that_take_names_complete_them() {
        let verbs: Vec<String> = by_name().collect();
        assert!(verbs.len() >= 10 && !verbs.contains(&"ps".to_owned()), "{verbs:?}");
        let zsh = String::from_utf8(script(Shell::Zsh)).unwrap();
        // Two forms of making a snapshot.
        assert_eq!(zsh.matches("_rvmm_names'").count(), verbs.len() + 2, "{zsh}");
        assert!(zsh.contains("Folder of the snapshot:_files -/"), "{zsh}");
        let bash = String::from_utf8(script(Shell::Bash)).unwrap();
        assert!(bash.contains("create inspect verify merge"), "{bash}");
    }

    #[test]
    fn every_shell_completes_options_and_verbs() {
        use clap::ValueEnum as _;
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for word in ["log-file", "on-reset", "doctor", "inspect", "all-dead"] {
                assert!(script.contains(word), "{shell}: {word} is missing");
            }
        }
    }
}
