//! A CPU template, as Linux sees it.

use skip::Capability;

use super::{Guest, require_linux_guests};

#[test]
fn linux_does_without_what_the_template_for_emulated_processors_hides() {
    require_linux_guests!();
    // Whether the word is among the CPU's flags.
    let erms = "if grep -qw erms /proc/cpuinfo; then echo erms yes; else echo erms no; fi";
    if Guest::debian("6_12").run(erms).has_line("erms no") {
        return skip::skip(Capability::Erms, "this processor has nothing of what the template hides");
    }
    Guest::debian("6_12").args(["--cpu-template", "emulated"]).run(erms).assert_line("erms no");
}
