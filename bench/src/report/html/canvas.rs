//! What all charts share: two widths, text, and how a drawing gets into the page.

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea as _};
use plotters::element::Text;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, IntoFont as _, TextStyle};

use super::colour::{self, Colour};

/// plotters' SVG backend divides sizes of text by this.
const BACKEND: f64 = 1.24;

/// Height of an axis with its ticks and its name, in pixels.
pub(super) const AXIS: u32 = 44;

/// What charts are drawn on.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// How wide a chart is: for a desktop, or for a phone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Width {
    /// 840 pixels.
    Wide,
    /// 328 pixels.
    Narrow,
}

impl Width {
    /// In pixels.
    pub(super) const fn pixels(self) -> u32 {
        match self {
            Self::Wide => 840,
            Self::Narrow => 328,
        }
    }

    /// Room for names at the left of what they name; on a phone they are above it.
    pub(super) const fn names(self) -> u32 {
        match self {
            Self::Wide => 220,
            Self::Narrow => 20,
        }
    }

    /// Room for figures at the right.
    pub(super) const fn figures(self) -> u32 {
        match self {
            Self::Wide => 100,
            Self::Narrow => 20,
        }
    }

    /// How many ticks an axis has room for.
    pub(super) const fn ticks(self) -> usize {
        match self {
            Self::Wide => 9,
            Self::Narrow => 5,
        }
    }

    /// Height of a row, with its name where that is above.
    pub(super) const fn row(self) -> u32 {
        match self {
            Self::Wide => 36,
            Self::Narrow => 48,
        }
    }

    /// Where in a row the drawing is, from the top.
    pub(super) const fn middle(self) -> f64 {
        match self {
            Self::Wide => 0.5,
            Self::Narrow => 0.68,
        }
    }

    /// Of characters of a name.
    pub(super) const fn letters(self) -> usize {
        match self {
            Self::Wide => 31,
            Self::Narrow => 32,
        }
    }
}

/// The two drawings of a chart.
pub(super) struct Chart {
    /// For a desktop.
    pub(super) wide: String,
    /// For a phone.
    pub(super) narrow: String,
}

impl Chart {
    /// Draws both. `title` is what those hear who do not see it.
    ///
    /// # Errors
    /// It cannot be drawn.
    pub(super) fn draw(
        title: &str,
        height: impl Fn(Width) -> u32,
        draw: impl Fn(&Area<'_>, Width) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let one = |width: Width| {
            let size = (width.pixels(), height(width));
            let mut text = String::new();
            let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
            draw(&area, width)?;
            area.present()?;
            drop(area);
            // The element itself is ours: without a fixed size, and with a name.
            let (_, drawing) =
                text.split_once("<svg").and_then(|(_, rest)| rest.split_once('>')).unwrap_or_default();
            let label = maud::html! { (title) }.into_string();
            Ok::<_, anyhow::Error>(format!(
                "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{label}\"><title>{label}</title>{drawing}",
                size.0, size.1
            ))
        };
        Ok(Self { wide: one(Width::Wide)?, narrow: one(Width::Narrow)? })
    }
}

/// Writes `words` at a place in pixels.
///
/// # Errors
/// It cannot be drawn.
pub(super) fn write(
    area: &Area<'_>,
    words: &str,
    at: (i32, i32),
    side: HPos,
    colour: Colour,
) -> anyhow::Result<()> {
    area.draw(&Text::new(words.to_owned(), at, style(13.0, colour).pos(Pos::new(side, VPos::Center))))?;
    Ok(())
}

/// Text of a size in pixels.
pub(super) fn style(size: f64, colour: Colour) -> TextStyle<'static> {
    let mut style = TextStyle::from(("sans-serif", size * BACKEND).into_font());
    style.color = colour.drawn().to_backend_color();
    style
}

/// Names of axes and ticks.
pub(super) fn small() -> TextStyle<'static> {
    style(12.0, colour::FAINT)
}
