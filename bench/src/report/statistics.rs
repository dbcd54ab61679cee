//! What is said of samples: quantiles, and ratios run by run. Samples that are not numbers do not count.

/// Runs below which two contenders are not compared in words.
pub(crate) const FEWEST: usize = 5;

/// Samples in short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// How many.
    pub(crate) n: usize,
    /// The smallest.
    pub(crate) min: f64,
    /// One of ten is below this.
    pub(crate) p10: f64,
    /// A quarter is below this.
    pub(crate) q1: f64,
    /// Half is below this.
    pub(crate) median: f64,
    /// Three quarters are below this.
    pub(crate) q3: f64,
    /// Nine of ten are below this.
    pub(crate) p90: f64,
    /// 99 of 100 are below this.
    pub(crate) p99: f64,
    /// The largest.
    pub(crate) max: f64,
    /// How many are below 1, and how many above.
    pub(crate) around_one: [usize; 2],
}

impl Summary {
    /// Of `samples`, in any order; none where there is no number among them.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().filter(|sample| sample.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            n: sorted.len(),
            min: *sorted.first()?,
            p10: quantile(&sorted, 0.1)?,
            q1: quantile(&sorted, 0.25)?,
            median: quantile(&sorted, 0.5)?,
            q3: quantile(&sorted, 0.75)?,
            p90: quantile(&sorted, 0.9)?,
            p99: quantile(&sorted, 0.99)?,
            max: *sorted.last()?,
            around_one: [
                sorted.iter().filter(|&&sample| sample < 1.0).count(),
                sorted.iter().filter(|&&sample| sample > 1.0).count(),
            ],
        })
    }

    /// How wide the middle half is, as a part of the median.
    pub(crate) fn spread(&self) -> f64 {
        (self.q3 - self.q1) / self.median
    }
}

/// The value below which the part `q` of `sorted` lies, between neighbours by a straight line.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q * real(last);
    #[expect(clippy::cast_sign_loss, reason = "a place in the list")]
    let below = (place.floor() as usize).min(last);
    let (low, high) = (*sorted.get(below)?, *sorted.get((below + 1).min(last))?);
    let part = place - real(below);
    Some(low * (1.0 - part) + high * part)
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "counts and sizes; what is drawn has three digits")]
pub(crate) fn real(count: usize) -> f64 {
    count as f64
}

/// `samples` divided by `of`, run by run: what disturbed both in one turn is not in the ratio. Runs that one of the two does not have,
/// or where one is not above 0, are left out.
pub(crate) fn ratios(samples: &[f64], of: &[f64]) -> Vec<f64> {
    let fit = |sample: f64| sample.is_finite() && sample > 0.0;
    samples.iter().zip(of).filter(|&(&a, &b)| fit(a) && fit(b)).map(|(a, b)| a / b).collect()
}

/// What ratios say of their two sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// There are fewer than [`FEWEST`].
    TooFew,
    /// They lie on both sides of 1: the two are not told apart.
    Alike,
    /// The first is smaller.
    Less,
    /// The first is larger.
    More,
}

impl Verdict {
    /// Of a summary of ratios: nine of ten have to agree, or all where there are fewer than ten.
    pub(crate) fn of(ratios: &Summary) -> Self {
        let [below, above] = ratios.around_one;
        let agree = |count: usize| if ratios.n < 10 { count == ratios.n } else { count * 10 >= ratios.n * 9 };
        match () {
            () if ratios.n < FEWEST => Self::TooFew,
            () if agree(below) => Self::Less,
            () if agree(above) => Self::More,
            () => Self::Alike,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let summary = Summary::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((summary.n, summary.min, summary.median, summary.max), (4, 1.0, 2.5, 4.0));
        assert!((summary.p90 - 3.7).abs() < 1e-9, "{summary:?}");
    }

    #[test]
    fn what_is_no_number_does_not_count() {
        let summary = Summary::of([f64::NAN, -2.0, f64::INFINITY]).unwrap();
        assert_eq!((summary.n, summary.median), (1, -2.0));
        assert_eq!(Summary::of([f64::NAN]), None);
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn ratios_are_of_the_same_run() {
        assert_eq!(ratios(&[2.0, f64::NAN, 6.0, 1.0], &[1.0, 1.0, 2.0, 0.0, 9.0]), [2.0, 3.0]);
    }

    #[test]
    fn ratios_on_both_sides_of_one_tell_nothing() {
        let verdict = |ratios: &[f64]| Verdict::of(&Summary::of(ratios.iter().copied()).unwrap());
        assert_eq!(verdict(&[0.9, 0.95, 1.0, 1.05, 1.1]), Verdict::Alike);
        assert_eq!(verdict(&[1.2, 1.3, 0.9, 1.2, 1.2]), Verdict::Alike);
        assert_eq!(verdict(&[1.2, 1.3, 1.1, 1.2, 1.2]), Verdict::More);
        assert_eq!(verdict(&[[1.2; 19].as_slice(), &[0.9]].concat()), Verdict::More);
        assert_eq!(verdict(&[0.2, 0.3, 0.1, 0.2, 0.2]), Verdict::Less);
        assert_eq!(verdict(&[[0.5; 10].as_slice(), &[1.1; 2]].concat()), Verdict::Alike);
        assert_eq!(verdict(&[5.0, 5.0]), Verdict::TooFew);
    }
}
