//! Linux guests that are steered over the REST socket.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::{Guest, RootImage, require_linux_guests};
use crate::support::api::ApiSocket;
use crate::support::poll;

#[test]
fn ctrl_alt_del_reboots_a_guest() {
    require_linux_guests!();
    for guest in [Guest::small().shared_root(), Guest::debian("6_12")] {
        let socket = ApiSocket::new();
        let guest = guest.arg("--api-sock").arg(socket.path());
        let mut running = guest.running("echo now; sleep 1000").launch();
        running.wait_for("now\r\n");
        let pressed = || {
            let answer = socket.put("/actions", &json!({"action_type": "SendCtrlAltDel"}));
            // The keyboard's driver may not be that far yet.
            assert!(answer.status == 204 || answer.body.contains("no keyboard driver"), "{answer:?}");
            answer.status == 204
        };
        assert!(poll(pressed));
        let ended = running.end();
        assert_eq!(ended.code(), 0, "{ended:#?}");
    }
}

#[test]
fn a_guest_that_is_paused_again_and_again_while_it_writes_its_disk_loses_nothing() {
    require_linux_guests!();
    let socket = ApiSocket::new();
    let image = RootImage::new();
    let command = "cd /var; i=0; while [ $i -lt 30 ]; do i=$((i+1)); \
                   dd if=/dev/urandom of=f bs=64k count=16 2>/dev/null; sync; a=$(md5sum f); \
                   echo 3 >/proc/sys/vm/drop_caches; case $(md5sum f) in $a) echo round $i ;; *) break ;; esac; done";
    let guest = Guest::small().root(&image, "").arg("--api-sock").arg(socket.path());
    let mut running = guest.running(command).launch();
    running.wait_for("round 1\r\n");
    for _ in 0..10 {
        socket.patch("/vm", &json!({"state": "Paused"})).assert_done();
        let before = running.printed();
        thread::sleep(Duration::from_millis(100));
        assert!(running.printed().len() <= before.len() + 16, "it prints while it is paused");
        socket.patch("/vm", &json!({"state": "Resumed"})).assert_done();
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(socket.get("/rvmm/metrics.json").json()["vmm"]["pauses"], 10);
    let ended = running.end();
    ended.assert_clean();
    assert!(ended.stdout.contains("round 30\r\n"), "{ended:#?}");
    image.assert_clean();
}
