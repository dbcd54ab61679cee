//! A guest goes on where it was, in the same process and in another.

use serde_json::json;

use super::{Asked, Snapshot, counted};
use crate::support::api::request as request_bytes;
use crate::support::kvm::require_kvm;

/// The lines of count-forever, one after the other, without a gap or a repetition.
#[track_caller]
fn assert_gapless(output: &str) {
    let numbers = counted(output);
    assert!(numbers.len() > 2, "{output:?}");
    for (number, expected) in numbers.iter().zip(1..) {
        assert_eq!(*number, expected, "{output:?}");
    }
}

#[test]
fn a_restored_guest_goes_on_with_its_next_instruction() {
    require_kvm!();
    let mut asked = Asked::guest("count-forever", "00000020\n");
    asked.pause();
    let snapshot = asked.snapshot(&json!({}));
    let before = asked.running.signal(libc::SIGTERM).printed();
    for _ in 0..2 {
        let mut restored = snapshot.restore().launch();
        restored.wait_for_times(40, "\n");
        assert_gapless(&(before.clone() + &restored.printed()));
        restored.signal(libc::SIGTERM);
    }
}

#[test]
fn the_guest_of_a_snapshot_goes_on_as_if_there_had_been_none() {
    require_kvm!();
    let mut asked = Asked::guest("count-forever", "00000020\n");
    let snapshots: Vec<_> = (0..3).map(|_| asked.snapshot(&json!({"live": true}))).collect();
    let lines = asked.running.printed().lines().count();
    asked.running.wait_for_times(lines + 20, "\n");
    asked.running.signal(libc::SIGTERM);
    assert_gapless(&asked.running.printed());
    for snapshot in snapshots {
        let mut restored = snapshot.restore().launch();
        restored.wait_for_times(20, "\n");
        restored.signal(libc::SIGTERM);
    }
}

#[test]
fn a_snapshot_of_a_restored_guest_restores() {
    require_kvm!();
    let first = Asked::guest("count-forever", "00000020\n");
    let mut snapshot = first.snapshot(&json!({"live": true}));
    for _ in 0..3 {
        let asked = Asked::launch(snapshot.restore(), "0\n");
        asked.pause();
        snapshot = asked.snapshot(&json!({}));
    }
    let mut last = snapshot.restore().launch();
    last.wait_for_times(20, "\n");
    let output = last.printed();
    // The first line may have begun in the VM before.
    let numbers = counted(output.split_once('\n').unwrap().1);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{output:?}");
    assert!(numbers[0] > 0x30, "{output:?}");
}

#[test]
fn a_vm_that_is_to_end_when_it_is_saved_cannot_be_resumed_meanwhile() {
    require_kvm!();
    let mut refusals = 0;
    for _ in 0..3 {
        let asked = Asked::guest("count-forever", "00000010\n");
        let snapshot = Snapshot::default();
        let request = json!({"snapshot_path": snapshot.path(), "stop": true}).to_string();
        let mut saving = asked.socket.connect();
        let mut resuming = asked.socket.connect();
        saving.send(request_bytes("PUT", "/snapshot/create", &request));
        // Until the process has ended, however long the snapshot takes.
        let resume = request_bytes("PATCH", "/vm", r#"{"state": "Resumed"}"#);
        while resuming.try_send(&resume).is_ok()
            && let Some(answer) = resuming.answer_or_end()
        {
            refusals += usize::from(answer.body.contains("the VM is being saved and ends then"));
        }
        let ended = asked.running.end();
        assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""), "{ended:#?}");
        let mut restored = snapshot.restore().launch();
        restored.wait_for_times(20, "\n");
        assert_gapless(&(ended.stdout + &restored.printed()));
        restored.signal(libc::SIGTERM);
    }
    assert!(refusals > 0, "no request arrived while the snapshot was written");
}

#[test]
fn a_vm_that_was_to_end_when_it_is_saved_ends_well() {
    require_kvm!();
    for paused in [false, true] {
        let asked = Asked::guest("count-forever", "00000010");
        if paused {
            asked.pause();
        }
        let _snapshot = asked.snapshot(&json!({"stop": true}));
        let ended = asked.running.end();
        assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""), "{ended:#?}");
    }
}
