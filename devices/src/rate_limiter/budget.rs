//! A limit for what is not waited for: what is beyond it is dropped.

use super::TokenBucketConfig;
use super::bucket::TokenBucket;
use crate::clock;

/// Tokens that come in over time, and are spent or not at once.
#[derive(Debug)]
pub struct Budget(TokenBucket);

impl Budget {
    /// A full bucket; none when `config` limits nothing.
    pub fn new(config: &TokenBucketConfig) -> Option<Self> {
        TokenBucket::new(config, clock::monotonic()).map(Self)
    }

    /// Takes `tokens`, if there are as many.
    #[must_use]
    pub fn spend(&mut self, tokens: u64) -> bool {
        self.0.refill(clock::monotonic());
        let enough = self.0.wait(tokens) == 0;
        self.0.forget_wait();
        if enough {
            self.0.take(tokens);
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_can_be_spent_and_no_more() {
        let config = TokenBucketConfig { size: 100, refill_time: 3_600_000, one_time_burst: Some(10) };
        let mut budget = Budget::new(&config).unwrap();
        assert_eq!((0..200).filter(|_| budget.spend(1)).count(), 110);
        assert!(Budget::new(&TokenBucketConfig { size: 0, ..config }).is_none());
    }
}
