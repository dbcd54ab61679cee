//! The charts of the report, each with what it shows in words.

use maud::{Markup, PreEscaped, html};

use crate::report::figures::{self, Figures};
use crate::report::statistics::Summary;
use crate::report::words;
use crate::results::{Contender, Kind, Step};

use super::canvas::Chart;
use super::colour::{self, Colour};
use super::lines::{self, Line};
use super::rows::{self, Axis, Row};
use super::scale::Unit;

/// The times to the marker.
pub(super) fn start(figures: &Figures<'_>) -> anyhow::Result<Markup> {
    let row = |(contender, summary): (&Contender, Summary)| Row {
        name: contender.title.clone(),
        figure: words::time(summary.median),
        colour: Colour::of(contender.kind),
        values: figures::markers(contender),
    };
    let rows: Vec<_> = figures.started().into_iter().map(row).collect();
    let axis = Axis { name: "from the launch to the marker".to_owned(), unit: Unit::TIME, mark: None };
    let title = spoken("Time to start, medians", &rows);
    let caption = "Each dot is a start. The box is the middle half, the bold line the median, whose value is at the right.";
    Ok(figure(caption, &kinds(figures), &rows::samples(&title, &rows, &axis)?))
}

/// Where VMs' time goes.
pub(super) fn parts(figures: &Figures<'_>) -> anyhow::Result<Markup> {
    let row = |contender: &Contender| {
        let values = figures::parts(contender)?.to_vec();
        let figure = words::time(values.iter().sum());
        Some(Row { name: contender.title.clone(), figure, colour: colour::INK, values })
    };
    let rows: Vec<_> = figures.present().filter_map(row).collect();
    let axis = Axis { name: "from the launch to the marker".to_owned(), unit: Unit::TIME, mark: None };
    let title = spoken("Parts of a VM's start, sums of medians", &rows);
    let legend = parts_legend(&figures::PARTS);
    Ok(figure(
        &format!("Medians of each part; their sum is at the right. {}", figures::FIRST_PART),
        &legend,
        &rows::stacks(&title, &rows, &axis)?,
    ))
}

/// Memory of one instance.
pub(super) fn memory(figures: &Figures<'_>) -> anyhow::Result<Markup> {
    let row = |contender: &Contender| {
        let values = figures::memory(contender)?.to_vec();
        let figure = words::size(values.iter().sum());
        Some(Row { name: contender.title.clone(), figure, colour: colour::INK, values })
    };
    let rows: Vec<_> = figures.present().filter_map(row).collect();
    let axis = Axis { name: "proportional set size".to_owned(), unit: Unit::SIZE, mark: None };
    let title = spoken("Memory of an idle instance", &rows);
    let legend = parts_legend(&["guest's memory", "beside it: processes, VMM, shims"]);
    Ok(figure("One idle instance. All of it is at the right.", &legend, &rows::stacks(&title, &rows, &axis)?))
}

/// Memory for each instance, over their number.
pub(super) fn density(figures: &Figures<'_>) -> anyhow::Result<Markup> {
    over_instances(
        figures,
        "Memory for each instance, by number of instances",
        figures::memory_per_instance,
        Unit::SIZE,
    )
}

/// Starts in a second, over the number of instances.
pub(super) fn rates(figures: &Figures<'_>) -> anyhow::Result<Markup> {
    let rate = |step: &Step| figures::rate(step, step.parallel);
    over_instances(figures, "Starts in a second, by number of instances started at once", rate, Unit::NUMBER)
}

fn over_instances(
    figures: &Figures<'_>,
    title: &str,
    value: impl Fn(&Step) -> f64,
    unit: Unit,
) -> anyhow::Result<Markup> {
    let line = |contender: &Contender| {
        let steps = contender.density.as_ref()?.steps.iter().filter(|step| step.instances > 0);
        let points: Vec<_> =
            steps.map(|step| (step.instances, value(step))).filter(|(_, value)| value.is_finite()).collect();
        let names = [contender.title.clone(), contender.name.clone()];
        (!points.is_empty()).then(|| Line { names, colour: Colour::of(contender.kind), points })
    };
    let all: Vec<_> = figures.present().filter_map(line).collect();
    let ends = all.iter().filter_map(|line| {
        let (instances, value) = line.points.last()?;
        Some(format!("{} {} with {instances}", line.names.first()?, (unit.format)(*value)))
    });
    let spoken = format!("{title}: {}", ends.collect::<Vec<_>>().join(", "));
    Ok(figure(
        "One sample for each number of instances.",
        &kinds(figures),
        &lines::lines(&spoken, &all, unit)?,
    ))
}

/// Speed of work of one name.
pub(super) fn work(figures: &Figures<'_>, name: &str) -> anyhow::Result<Markup> {
    let (shares, unit) = figures.work(name);
    let rows: Vec<_> = shares
        .into_iter()
        .filter_map(|share| {
            let speed = Summary::of(share.speeds.iter().copied())?;
            Some(Row {
                name: share.contender.title.clone(),
                figure: words::number(speed.median),
                colour: Colour::of(share.contender.kind),
                values: share.speeds,
            })
        })
        .collect();
    if rows.is_empty() {
        return Ok(Markup::default());
    }
    let axis = Axis {
        name: "speed as a part of the plain process's".to_owned(),
        unit: Unit::NUMBER,
        mark: Some(1.0),
    };
    let title = spoken(
        &format!("Speed of {} as a part of the plain process's, medians", figures::work_title(name)),
        &rows,
    );
    let caption = format!(
        "Each dot is a round ({unit}), divided by the plain process's. At the line it is as fast; left of it, slower."
    );
    Ok(figure(&caption, &kinds(figures), &rows::samples(&title, &rows, &axis)?))
}

/// What those hear who do not see a chart.
fn spoken(title: &str, rows: &[Row]) -> String {
    let told = rows.iter().map(|row| format!("{} {}", row.name, row.figure));
    format!("{title}: {}", told.collect::<Vec<_>>().join(", "))
}

fn figure(caption: &str, legend: &Markup, chart: &Chart) -> Markup {
    html! {
        figure {
            figcaption { (caption) (legend) }
            div.wide { (PreEscaped(&chart.wide)) }
            div.narrow { (PreEscaped(&chart.narrow)) }
        }
    }
}

/// What the colours of contenders mean.
fn kinds(figures: &Figures<'_>) -> Markup {
    let there = |kind: Kind| figures.present().any(|contender| contender.kind == kind);
    let kinds = [Kind::Process, Kind::Container, Kind::Sandbox, Kind::MicroVm];
    let entries: Vec<_> = kinds
        .into_iter()
        .filter(|&kind| there(kind))
        .map(|kind| (Colour::of(kind), figures::kind(kind)))
        .collect();
    legend(&entries)
}

fn parts_legend(names: &[&'static str]) -> Markup {
    legend(&colour::PARTS.into_iter().zip(names.iter().copied()).collect::<Vec<_>>())
}

fn legend(entries: &[(Colour, &str)]) -> Markup {
    html! { ul.legend { @for (colour, name) in entries { li { i.(colour.swatch()) {} (name) } } } }
}
