//! The colours, each for light and for dark. Charts are drawn with the light ones, and the style sheet replaces them by their names, so
//! that a chart follows the reader's theme.

use plotters::style::RGBColor;

use crate::results::Kind;

/// A colour by its name in the style sheet, as the red, green and blue of both themes. No two light ones are the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Colour {
    name: &'static str,
    light: [u8; 3],
    dark: [u8; 3],
}

macro_rules! colours {
    ($($constant:ident $name:literal $light:literal $dark:literal;)*) => {
        $(#[doc = concat!("`", $name, "`")] pub(super) const $constant: Colour =
            Colour { name: $name, light: rgb($light), dark: rgb($dark) };)*
        const ALL: &[Colour] = &[$($constant),*];
    };
}

colours! {
    PAPER "paper" 0xff_ff_ff 0x14_17_1b;
    INK "ink" 0x1c_22_2b 0xe6_e9_ee;
    FAINT "faint" 0x5a_64_70 0xa3_ad_b8;
    GRID "grid" 0xdf_e3_e8 0x31_37_3f;
    PROCESS "process" 0x4d_55_61 0xb4_bc_c8;
    CONTAINER "container" 0x00_72_b2 0x56_b4_e9;
    SANDBOX "sandbox" 0xb4_50_0f 0xf0_a3_5e;
    MICRO_VM "microvm" 0x00_7a_57 0x3c_c7_9b;
    FIRST "first" 0x2b_6c_a3 0x6d_b3_e8;
    SECOND "second" 0xc2_61_1f 0xee_9a_55;
    THIRD "third" 0x76_7c_85 0x98_a1_ad;
    WARNING "warning" 0x7a_46_00 0xff_cf_86;
    WARNING_PAPER "warning-paper" 0xff_f4_de 0x35_2a_14;
    PANEL "panel" 0xf5_f6_f8 0x1c_20_26;
}

/// Of the parts of a bar, in their order: blue, orange and grey are told apart by everyone.
pub(super) const PARTS: [Colour; 3] = [FIRST, SECOND, THIRD];

const fn rgb(hex: u32) -> [u8; 3] {
    let [_, red, green, blue] = hex.to_be_bytes();
    [red, green, blue]
}

impl Colour {
    /// As it is drawn with.
    pub(super) const fn drawn(self) -> RGBColor {
        let [red, green, blue] = self.light;
        RGBColor(red, green, blue)
    }

    /// The class of what has it as its background.
    pub(super) fn swatch(self) -> String {
        format!("swatch-{}", self.name)
    }

    /// Of contenders of `kind`.
    pub(super) const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Process => PROCESS,
            Kind::Container => CONTAINER,
            Kind::Sandbox => SANDBOX,
            Kind::MicroVm => MICRO_VM,
        }
    }
}

/// The rules of the style sheet that give the colours their values, and charts their colours.
pub(super) fn style() -> String {
    let hex = |[red, green, blue]: [u8; 3]| format!("#{red:02X}{green:02X}{blue:02X}");
    let values = |of: fn(&Colour) -> [u8; 3]| {
        ALL.iter()
            .map(|colour| format!("--{}:{};", colour.name, hex(of(colour))))
            .collect::<Vec<_>>()
            .concat()
    };
    let chart = |colour: &Colour| {
        let (name, light) = (colour.name, hex(colour.light));
        format!(
            "svg [fill=\"{light}\"]{{fill:var(--{name})}}svg [stroke=\"{light}\"]{{stroke:var(--{name})}}.swatch-{name}{{background:var(--{name})}}\n"
        )
    };
    format!(
        ":root{{color-scheme:light dark;{}}}\n@media (prefers-color-scheme:dark){{:root{{{}}}}}\n{}",
        values(|colour| colour.light),
        values(|colour| colour.dark),
        ALL.iter().map(chart).collect::<Vec<_>>().concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrast by WCAG 2.2, from 1 to 21.
    fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
        let luminance = |colour: [u8; 3]| {
            let [red, green, blue] = colour.map(|part| {
                let part = f64::from(part) / 255.0;
                if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
            });
            0.2126 * red + 0.7152 * green + 0.0722 * blue
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_and_charts_have_contrast_in_both_themes() {
        let held = [
            (INK, PAPER, 4.5),
            (INK, PANEL, 4.5),
            (FAINT, PAPER, 4.5),
            (FAINT, PANEL, 4.5),
            (WARNING, WARNING_PAPER, 4.5),
            (CONTAINER, PAPER, 4.5),
            (PROCESS, PAPER, 3.0),
            (SANDBOX, PAPER, 3.0),
            (MICRO_VM, PAPER, 3.0),
            (FIRST, PAPER, 3.0),
            (SECOND, PAPER, 3.0),
            (THIRD, PAPER, 3.0),
        ];
        for (colour, on, least) in held {
            for (theme, contrast) in
                [("light", contrast(colour.light, on.light)), ("dark", contrast(colour.dark, on.dark))]
            {
                assert!(contrast >= least, "{} on {}, {theme}: {contrast:.2}", colour.name, on.name);
            }
        }
    }

    #[test]
    fn each_colour_can_be_told_from_what_is_drawn() {
        for (at, colour) in ALL.iter().enumerate() {
            assert!(ALL.iter().skip(at + 1).all(|other| other.light != colour.light), "{}", colour.name);
        }
    }
}
