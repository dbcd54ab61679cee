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
        Shell::Bash => script.extend(bash(&verbs.join("|")).into_bytes()),
        Shell::Zsh => script = zsh(&String::from_utf8_lossy(&script)).into_bytes(),
        Shell::Fish => script.extend(fish(&verbs.join(" ")).into_bytes()),
        // Without names.
        _ => {}
    }
    script
}

/// The verbs that take names of VMs.
fn by_name() -> impl Iterator<Item = String> {
    let takes_names = |verb: &clap::Command| {
        verb.get_positionals().any(|argument| {
            argument.get_value_names().is_some_and(|names| names.iter().any(|name| *name == args::ID))
        })
    };
    let verbs: Vec<String> = args::command()
        .get_subcommands()
        .filter(|verb| takes_names(verb))
        .map(|verb| verb.get_name().to_owned())
        .collect();
    verbs.into_iter()
}

/// What completes names in bash, in front of what is generated.
fn bash(verbs: &str) -> String {
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
    format!(
        "complete -c rvmm -n \"__fish_seen_subcommand_from {verbs}\" -f -a \"(rvmm ps --names 2>/dev/null)\"\n"
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
        assert_eq!(zsh.matches("_rvmm_names'").count(), verbs.len(), "{zsh}");
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
