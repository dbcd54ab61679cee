//! Charts with a row for each contender: samples with their quartiles, and stacked bars.

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color as _, ShapeStyle};

use crate::report::statistics::{Summary, real};
use crate::report::words;

use super::canvas::{AXIS, Area, Chart, Width, small, write};
use super::colour::{self, Colour};
use super::scale::{Scale, Unit};

/// The most samples that are drawn in a row; of more, every so-manieth.
const MOST_POINTS: usize = 150;

/// Pixels above the first row.
const TOP: u32 = 6;

/// A row.
pub(super) struct Row {
    /// Whose it is.
    pub(super) name: String,
    /// The figure that is written.
    pub(super) figure: String,
    /// Of what is drawn.
    pub(super) colour: Colour,
    /// What is drawn: samples, or lengths of parts of a bar.
    pub(super) values: Vec<f64>,
}

/// The axis below the rows.
pub(super) struct Axis {
    /// What it says.
    pub(super) name: String,
    /// What it counts in.
    pub(super) unit: Unit,
    /// A value that is marked.
    pub(super) mark: Option<f64>,
}

type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Scale, RangedCoordf64>>;

/// Each sample a dot, a box for the middle half, a bold line for the median.
///
/// # Errors
/// It cannot be drawn.
pub(super) fn samples(title: &str, rows: &[Row], axis: &Axis) -> anyhow::Result<Chart> {
    Chart::draw(
        title,
        |width| height(rows, width),
        |area, width| {
            let values = rows.iter().flat_map(|row| row.values.iter().copied()).chain(axis.mark);
            let scale = Scale::of(values, width.ticks(), axis.unit);
            let mut plot = plot(area, width, rows.len(), &scale, axis)?;
            for (row, at) in rows.iter().zip(0..) {
                name(area, &plot, width, row, at)?;
                if let Some(summary) = Summary::of(row.values.iter().copied()) {
                    quartiles(&mut plot, middle(at, width), row, &summary)?;
                }
            }
            Ok(())
        },
    )
}

/// A bar from 0 for each row, made of its values one behind the other.
///
/// # Errors
/// It cannot be drawn.
pub(super) fn stacks(title: &str, rows: &[Row], axis: &Axis) -> anyhow::Result<Chart> {
    let sum = |row: &Row| {
        row.values.iter().filter(|value| value.is_finite()).map(|value| value.max(0.0)).sum::<f64>()
    };
    Chart::draw(
        title,
        |width| height(rows, width),
        |area, width| {
            let scale = Scale::of(rows.iter().map(sum).chain([0.0]), width.ticks(), axis.unit);
            let mut plot = plot(area, width, rows.len(), &scale, axis)?;
            for (row, at) in rows.iter().zip(0..) {
                name(area, &plot, width, row, at)?;
                let y = middle(at, width);
                let mut from = 0.0;
                for (value, colour) in row.values.iter().zip(colour::PARTS) {
                    let to = from + if value.is_finite() { value.max(0.0) } else { 0.0 };
                    plot.draw_series([Rectangle::new(
                        [(from, y - 0.22), (to, y + 0.22)],
                        colour.drawn().filled(),
                    )])?;
                    from = to;
                }
            }
            Ok(())
        },
    )
}

fn height(rows: &[Row], width: Width) -> u32 {
    TOP + AXIS + width.row() * rows.len() as u32
}

/// Where row `at` is drawn, in rows.
fn middle(at: usize, width: Width) -> f64 {
    real(at) + width.middle()
}

fn plot<'a, 'b>(
    area: &Area<'b>,
    width: Width,
    rows: usize,
    scale: &Scale,
    axis: &Axis,
) -> anyhow::Result<Plot<'a, 'b>> {
    let name = if scale.is_logarithmic() { format!("{}, logarithmic", axis.name) } else { axis.name.clone() };
    let mut plot = ChartBuilder::on(area)
        .margin_top(TOP)
        .margin_left(width.names())
        .margin_right(width.figures())
        .x_label_area_size(AXIS)
        .build_cartesian_2d(scale.clone(), real(rows)..0.0)?;
    plot.configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(width.ticks())
        .axis_style(colour::GRID.drawn())
        .bold_line_style(colour::GRID.drawn())
        .light_line_style(colour::GRID.drawn().mix(0.0))
        .x_label_style(small())
        .axis_desc_style(small())
        .x_desc(name)
        .draw()?;
    if let Some(mark) = axis.mark {
        let line = ShapeStyle::from(colour::FAINT.drawn()).stroke_width(1);
        plot.draw_series([PathElement::new([(mark, 0.0), (mark, real(rows))], line)])?;
    }
    Ok(plot)
}

/// Writes a row's name and figure: beside the drawing, or above it.
fn name(area: &Area<'_>, plot: &Plot<'_, '_>, width: Width, row: &Row, at: usize) -> anyhow::Result<()> {
    let place = match width {
        Width::Wide => 0.5,
        Width::Narrow => 0.24,
    };
    let (_, y) = plot.backend_coord(&(0.0, real(at) + place));
    write(area, &words::short(&row.name, width.letters()), (0, y), HPos::Left, colour::INK)?;
    let right = width.pixels().cast_signed();
    write(area, &row.figure, (right, y), HPos::Right, colour::FAINT)
}

fn quartiles(plot: &mut Plot<'_, '_>, y: f64, row: &Row, summary: &Summary) -> anyhow::Result<()> {
    let colour = row.colour.drawn();
    let Summary { min, q1, median, q3, max, .. } = *summary;
    plot.draw_series([PathElement::new([(min, y), (max, y)], colour.mix(0.6))])?;
    plot.draw_series([Rectangle::new([(q1, y - 0.2), (q3, y + 0.2)], colour.mix(0.28).filled())])?;
    let points: Vec<_> = row.values.iter().copied().filter(|value| value.is_finite()).collect();
    let every = points.len().div_ceil(MOST_POINTS).max(1);
    // Dots are moved up and down by parts of the golden ratio, so that equal ones do not hide each other, the same each time.
    let dots = points.iter().zip(0..).step_by(every).map(|(&value, at)| {
        let up = (real(at) * 0.618_034).fract() - 0.5;
        Circle::new((value, y + up * 0.3), 2, colour.mix(0.55).filled())
    });
    plot.draw_series(dots)?;
    plot.draw_series([PathElement::new([(median, y - 0.26), (median, y + 0.26)], colour.stroke_width(3))])?;
    Ok(())
}
