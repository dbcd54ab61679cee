//! Charts with a line for each contender over the number of instances.

use plotters::chart::ChartBuilder;
use plotters::element::{Circle, PathElement};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color as _, ShapeStyle};

use crate::report::words;

use super::canvas::{AXIS, Chart, Width, small, write};
use super::colour::{self, Colour};
use super::scale::{Scale, Unit};

/// Pixels between names at the ends of lines.
const APART: u32 = 15;

/// Instances.
const COUNT: Unit = Unit { format: |value| format!("{value:.0}"), binary: true };

/// A line.
pub(super) struct Line {
    /// Whose it is, for a desktop and for a phone.
    pub(super) names: [String; 2],
    /// Of the line.
    pub(super) colour: Colour,
    /// Numbers of instances, and what was measured with them.
    pub(super) points: Vec<(usize, f64)>,
}

/// Draws lines, each with its name at its end.
///
/// # Errors
/// It cannot be drawn.
pub(super) fn lines(title: &str, lines: &[Line], unit: Unit) -> anyhow::Result<Chart> {
    let least = AXIS + 30 + APART * lines.len() as u32;
    let height = |width: Width| least.max(if width == Width::Wide { 340 } else { 300 });
    Chart::draw(title, height, |area, width| {
        let (left, right) = if width == Width::Wide { (74, 232) } else { (58, 126) };
        let points = || lines.iter().flat_map(|line| line.points.iter().copied());
        let most = points().map(|(instances, _)| instances).max().unwrap_or(1);
        let across = Scale::doubling(most, if width == Width::Wide { 11 } else { 5 }, COUNT);
        let up = Scale::of(points().map(|(_, value)| value), 7, unit);
        let mut plot = ChartBuilder::on(area)
            .margin_top(10)
            .margin_right(right)
            .x_label_area_size(AXIS)
            .y_label_area_size(left)
            .build_cartesian_2d(across, up.clone())?;
        plot.configure_mesh()
            .axis_style(colour::GRID.drawn())
            .bold_line_style(colour::GRID.drawn())
            .light_line_style(colour::GRID.drawn().mix(0.0))
            .label_style(small())
            .axis_desc_style(small())
            .x_desc(if up.is_logarithmic() { "instances (both axes logarithmic)" } else { "instances" })
            .draw()?;
        let mut ends = Vec::new();
        for line in lines {
            let at = |&(instances, value): &(usize, f64)| (crate::report::statistics::real(instances), value);
            let points: Vec<_> = line.points.iter().map(at).filter(|(_, value)| value.is_finite()).collect();
            let colour = line.colour.drawn();
            plot.draw_series([PathElement::new(points.clone(), colour.stroke_width(2))])?;
            plot.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
            ends.extend(points.last().map(|end| (plot.backend_coord(end), line)));
        }
        let edge = width.pixels().cast_signed() - right;
        ends.sort_by_key(|((_, y), _)| *y);
        let places = apart(
            &ends.iter().map(|((_, y), _)| *y).collect::<Vec<_>>(),
            (height(width) - AXIS).cast_signed() - 10,
        );
        for (((x, y), line), place) in ends.into_iter().zip(places) {
            let thin = ShapeStyle::from(line.colour.drawn().mix(0.5)).stroke_width(1);
            area.draw(&PathElement::new([(x + 4, y), (edge + 8, place), (edge + 14, place)], thin))?;
            let [long, brief] = &line.names;
            let name = if width == Width::Wide { words::short(long, 31) } else { words::short(brief, 15) };
            write(area, &name, (edge + 18, place), HPos::Left, colour::INK)?;
        }
        Ok(())
    })
}

/// Moves `places`, which are sorted, so far that they do not touch, and that the last is above `bottom`.
fn apart(places: &[i32], bottom: i32) -> Vec<i32> {
    let mut moved = Vec::with_capacity(places.len());
    let mut next = i32::MIN;
    for &place in places {
        let place = place.max(next);
        moved.push(place);
        next = place + APART.cast_signed();
    }
    let mut most = bottom;
    for place in moved.iter_mut().rev() {
        *place = (*place).min(most);
        most = *place - APART.cast_signed();
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn names_at_the_ends_of_lines_do_not_touch() {
        assert_eq!(apart(&[50, 52, 200], 300), [50, 65, 200]);
        assert_eq!(apart(&[290, 295, 299], 300), [270, 285, 300]);
        assert!(apart(&[], 300).is_empty());
    }
}
