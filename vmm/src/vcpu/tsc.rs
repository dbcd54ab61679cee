//! The guest's time stamp counter, across a save and a restore.
//!
//! KVM shows a guest the host's counter, scaled, plus an offset. Where it lets the offset be set (`KVM_VCPU_TSC_CTRL`), each
//! vCPU gets one that continues its own counter, and all are moved by the same amount, so that they stay as far apart
//! as they were. Where it does not, all vCPUs' `IA32_TSC` are set to one value: KVM takes values set within a second
//! for the same moment's.
//!
//! The offset is made from what the counter shows on this host now, not from the host's own counter, so that it is right
//! on another host and with scaling, too.

use kvm_ioctls::{Cap, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

use super::msrs::{self, IA32_TSC, MsrV1};
use super::restore::RestoreError;
use crate::kvm::vcpu_ioctls::{set_tsc_offset, tsc_offset};
use crate::kvm::{self, Elapsed, KvmError, WallTime};

/// Rates that differ by less are not scaled, in parts per million: clocks that were measured differ so.
const TOLERANCE_PPM: u64 = 250;
/// A counter that is off by more is worth a warning, in milliseconds.
const WORTH_A_WARNING_MS: u64 = 10;

/// A vCPU's TSC at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TscStateV1 {
    /// Its rate in kHz, where KVM tells.
    pub khz: Option<u32>,
    /// Its value.
    pub value: u64,
    /// When it had this value.
    pub at: WallTime,
    /// Its offset against the host's scaled counter, where KVM tells.
    pub offset: Option<u64>,
}

/// How to continue the counters of a VM's vCPUs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    /// Add to each vCPU's saved offset.
    Offsets(u64),
    /// Set all counters to this.
    Value(u64),
    /// The host's counter is the guest's and cannot be moved, or its rate is not known.
    Leave,
}

impl Plan {
    /// For vCPUs of which `saved` is the first; `vcpu` is the first of this host's, at its final rate.
    pub(super) fn new(
        vcpu: &VcpuFd,
        saved: &TscStateV1,
        all_have_offsets: bool,
        elapsed: Elapsed,
    ) -> Result<Self, RestoreError> {
        let (reading, now) = kvm::timed(|| msrs::read(vcpu, &[IA32_TSC]))?;
        let Some(MsrV1 { value: shown, .. }) = reading.first() else { return Ok(Self::Leave) };
        let Some(wanted) = saved.value_at(now, elapsed) else { return Ok(Self::Leave) };
        let (Some(saved_offset), Some(offset), true) = (saved.offset, tsc_offset(vcpu), all_have_offsets)
        else {
            return Ok(Self::Value(wanted));
        };
        // With the saved offset plus this, the counter would have shown `wanted` instead of `shown`.
        let host = shown.wrapping_sub(offset);
        let delta = wanted.wrapping_sub(host).wrapping_sub(saved_offset);
        set_tsc_offset(vcpu, saved_offset.wrapping_add(delta)).map_err(failed)?;
        if tsc_offset(vcpu) == Some(saved_offset.wrapping_add(delta)) {
            return Ok(Self::Offsets(delta));
        }
        let off_by = wanted.abs_diff(*shown).checked_div(saved.khz.unwrap_or(0).into()).unwrap_or(0);
        if off_by > WORTH_A_WARNING_MS {
            log::warn!(
                "KVM on this host shows the guest the host's own TSC: it is {off_by} ms away from where it should be"
            );
        }
        Ok(Self::Leave)
    }

    /// Continues the counter of `vcpu`, which was `saved`.
    pub(super) fn apply(self, vcpu: &VcpuFd, saved: &TscStateV1) -> Result<(), RestoreError> {
        match self {
            Self::Offsets(delta) => {
                let offset = saved.offset.unwrap_or_default().wrapping_add(delta);
                Ok(set_tsc_offset(vcpu, offset).map_err(failed)?)
            }
            Self::Value(value) => {
                let refused = msrs::write(vcpu, &[MsrV1 { index: IA32_TSC, value }])?;
                refused.map_or(Ok(()), |msr| Err(RestoreError::Msr { index: msr.index, value }))
            }
            Self::Leave => Ok(()),
        }
    }
}

fn failed(source: std::io::Error) -> KvmError {
    KvmError::Ioctl { what: "KVM_SET_DEVICE_ATTR of KVM_VCPU_TSC_OFFSET", source }
}

impl TscStateV1 {
    /// What the counter shows at `now`; `None` when its rate is needed and not known.
    fn value_at(&self, now: WallTime, elapsed: Elapsed) -> Option<u64> {
        let nanoseconds = now.counted_since(self.at, elapsed);
        if nanoseconds == 0 {
            return Some(self.value);
        }
        let ticks = u128::from(nanoseconds) * u128::from(self.khz?) / 1_000_000;
        Some(self.value.wrapping_add(ticks as u64))
    }
}

/// The rate of a VM's counters on this host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// In kHz, where KVM tells.
    now: Option<u32>,
    /// KVM can give a guest another. (One that cannot may still take a higher one, and then moves the counter forward in
    /// jumps.)
    scales: bool,
}

impl Rate {
    /// What `vcpu`, a fresh one of `vm`, has.
    pub(super) fn of(vm: &VmFd, vcpu: &VcpuFd) -> Self {
        Self { now: vcpu.get_tsc_khz().ok(), scales: vm.check_extension(Cap::TscControl) }
    }

    /// Gives `vcpu` the rate that it had, if this host's is another.
    pub(super) fn apply(self, vcpu: &VcpuFd, saved: &TscStateV1) -> Result<(), RestoreError> {
        match saved.khz.zip(self.now) {
            None => Ok(()),
            Some((wanted, now)) if same_rate(wanted, now) => Ok(()),
            Some((wanted, now)) if !self.scales => Err(RestoreError::TscRate { wanted, now }),
            Some((wanted, _)) => Ok(vcpu.set_tsc_khz(wanted).map_err(kvm::failed("KVM_SET_TSC_KHZ"))?),
        }
    }
}

/// Whether two rates in kHz are close enough for a guest.
fn same_rate(one: u32, other: u32) -> bool {
    let tolerated = u64::from(one) * TOLERANCE_PPM / 1_000_000;
    u64::from(one.abs_diff(other)) <= tolerated
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: TscStateV1 =
        TscStateV1 { khz: Some(2_000_000), value: 1000, at: WallTime(5_000), offset: None };

    #[test]
    fn the_counter_counts_the_time_that_is_counted() {
        let later = WallTime(5_000 + 3_000_000_000);
        assert_eq!(SAVED.value_at(later, Elapsed::Counted), Some(1000 + 6_000_000_000));
        assert_eq!(SAVED.value_at(later, Elapsed::Left), Some(1000));
        assert_eq!(SAVED.value_at(WallTime(0), Elapsed::Counted), Some(1000), "a clock that went back");
        let unknown = TscStateV1 { khz: None, ..SAVED };
        assert_eq!(unknown.value_at(later, Elapsed::Counted), None);
        assert_eq!(unknown.value_at(later, Elapsed::Left), Some(1000));
    }

    #[test]
    fn a_hostile_time_overflows_nothing() {
        let hostile =
            TscStateV1 { khz: Some(u32::MAX), value: u64::MAX, at: WallTime(0), offset: Some(u64::MAX) };
        hostile.value_at(WallTime(u64::MAX), Elapsed::Counted).unwrap();
    }

    #[test]
    fn rates_that_are_measured_differ_a_little() {
        assert!(same_rate(2_596_148, 2_596_500));
        assert!(!same_rate(2_596_148, 2_600_000));
        assert!(!same_rate(0, 1) && same_rate(0, 0));
    }
}
