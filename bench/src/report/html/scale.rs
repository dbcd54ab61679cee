//! Axes: linear or logarithmic, with round ticks, as many as there is room for.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::report::statistics::real;
use crate::report::words;

/// From this ratio of the largest to the smallest value on an axis is logarithmic.
const WIDE: f64 = 20.0;

/// The most a value on an axis is apart from 0; beyond, it is drawn at the edge.
const FARTHEST: f64 = 1e18;

/// What an axis counts in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    /// How a value is written.
    pub(super) format: fn(f64) -> String,
    /// Whether round values are powers of two: sizes in bytes.
    pub(super) binary: bool,
}

impl Unit {
    /// Milliseconds.
    pub(super) const TIME: Self = Self { format: words::time, binary: false };
    /// Bytes.
    pub(super) const SIZE: Self = Self { format: words::size, binary: true };
    /// A bare number.
    pub(super) const NUMBER: Self = Self { format: words::number, binary: false };
}

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
    unit: Unit,
}

impl Scale {
    /// For `values`: from 0, or by powers of ten where they are far apart, with at most `most` ticks.
    pub(super) fn of(values: impl Iterator<Item = f64>, most: usize, unit: Unit) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .map(|value| value.clamp(-FARTHEST, FARTHEST))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        match () {
            () if low > high => Self::linear(0.0, 1.0, most, unit),
            () if low > 1e-6 && high / low >= WIDE => Self::powers(low, high, most, unit),
            () => Self::linear(low.min(0.0), high, most, unit),
        }
    }

    /// For counts that double.
    pub(super) fn doubling(most_value: usize, most: usize, unit: Unit) -> Self {
        let high = real(most_value.clamp(2, 1 << 20));
        let all: Vec<f64> = std::iter::successors(Some(1.0), |tick| Some(tick * 2.0))
            .take_while(|&tick| tick <= high)
            .collect();
        let step = all.len().div_ceil(most.max(1)).max(1);
        Self { low: 1.0, high, logarithmic: true, ticks: all.into_iter().step_by(step).collect(), unit }
    }

    /// Whether it is logarithmic.
    pub(super) fn is_logarithmic(&self) -> bool {
        self.logarithmic
    }

    fn linear(low: f64, high: f64, most: usize, unit: Unit) -> Self {
        let high = if high > low { high + (high - low) * 0.03 } else { low + 1.0 };
        let low = if low < 0.0 { low - (high - low) * 0.03 } else { low };
        let rough = (high - low) / real(most.max(1));
        // Of 1024 bytes, and of 1024 of them and so on, or of 1.
        let base = if unit.binary { 1024f64.powf(rough.max(1.0).log(1024.0).floor()) } else { 1.0 };
        let power = base * 10f64.powf((rough / base).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|&step| step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let first = (low / step).ceil();
        let ticks = (0..=most).map(|at| (first + real(at)) * step).take_while(|&tick| tick <= high).collect();
        Self { low, high, logarithmic: false, ticks, unit }
    }

    fn powers(low: f64, high: f64, most: usize, unit: Unit) -> Self {
        let (low, high) = (low / 1.15, high * 1.15);
        let base = if unit.binary { 2.0 } else { 10.0 };
        #[expect(clippy::cast_possible_truncation, reason = "below 70")]
        let powers = low.log(base).floor() as i32..=high.log(base).ceil() as i32;
        let within = |steps: &[f64], every: i32| {
            let powers = powers.clone().filter(|power| power % every == 0);
            let ticks = powers.flat_map(|power| steps.iter().map(move |step| step * f64::powi(base, power)));
            ticks.filter(|tick| (low..=high).contains(tick)).collect::<Vec<_>>()
        };
        let choices = if unit.binary {
            [within(&[1.0], 1), within(&[1.0], 2), within(&[1.0], 4), within(&[1.0], 5), within(&[1.0], 10)]
        } else {
            [
                within(&[1.0, 2.0, 5.0], 1),
                within(&[1.0, 3.0], 1),
                within(&[1.0], 1),
                within(&[1.0], 2),
                within(&[1.0], 4),
            ]
        };
        let ticks = choices.into_iter().find(|ticks| ticks.len() <= most).unwrap_or_default();
        Self { low, high, logarithmic: true, ticks, unit }
    }

    fn part(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * self.part(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        words::round(&(self.unit.format)(*value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(values: &[f64]) -> Scale {
        Scale::of(values.iter().copied(), 8, Unit::NUMBER)
    }

    #[test]
    fn values_far_apart_are_drawn_by_powers_of_ten() {
        assert_eq!(scale(&[1.5, 700.0]).ticks, [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]);
        assert!(!scale(&[40.0, 700.0]).is_logarithmic());
        assert!(!scale(&[0.0, 700.0]).is_logarithmic());
    }

    #[test]
    fn linear_axes_begin_at_zero_and_have_round_ticks() {
        assert_eq!(scale(&[3.0, 9.0]).ticks, [0.0, 2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn sizes_have_ticks_that_are_round_in_bytes() {
        let ticks = |values: &[f64]| {
            let ticks = Scale::of(values.iter().copied(), 5, Unit::SIZE).ticks;
            ticks.into_iter().map(|tick| words::round(&words::size(tick))).collect::<Vec<_>>()
        };
        let mib = f64::from(1 << 20);
        assert_eq!(ticks(&[0.0, 74.0 * mib]), ["0\u{a0}B", "20\u{a0}MiB", "40\u{a0}MiB", "60\u{a0}MiB"]);
        assert_eq!(
            ticks(&[0.3 * mib, 74.0 * mib]),
            ["1\u{a0}MiB", "4\u{a0}MiB", "16\u{a0}MiB", "64\u{a0}MiB"]
        );
    }

    #[test]
    fn odd_values_are_drawn_within_the_axis() {
        for values in [
            &[][..],
            &[f64::NAN],
            &[0.0],
            &[-5.0],
            &[-3.0, 4.0],
            &[1e300, 1e-300],
            &[1e300, -1e300],
            &[7.0, 7.0],
        ] {
            let scale = scale(values);
            assert!(scale.low < scale.high && scale.ticks.len() <= 9, "{values:?}: {scale:?}");
            for value in
                values.iter().copied().chain([f64::MAX, f64::MIN, 0.0]).filter(|value| !value.is_nan())
            {
                assert!((0..=100).contains(&scale.map(&value, (0, 100))), "{value} of {values:?}");
            }
        }
    }
}
