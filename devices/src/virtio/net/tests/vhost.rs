//! vhost-net that is saved and restored, on taps of this host's. Where there is no `/dev/vhost-net`, `tests/run` runs it on
//! the emulated host.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use skip::Capability;

use super::*;

/// The address of the host's end of a tap, and of the guest's.
const HOST: &str = "10.77.9.1";
const GUEST: &str = "10.77.9.2:9";

fn vhost_config(tap: &str) -> NetConfig {
    NetConfig { host_dev_name: Some(tap.to_owned()), vhost: true, ..config() }
}

/// Runs `ip`, which must do what it is told.
fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// The device on a tap of its own, or why there is none.
fn open(tap: &str) -> Result<VhostNetDevice, NetError> {
    let device = VhostNetDevice::open(&vhost_config(tap))?;
    // Or the host's kernel has much to say on its own.
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{tap}/disable_ipv6");
    if Path::new(&ipv6).exists() {
        std::fs::write(ipv6, "1").unwrap();
    }
    Ok(device)
}

/// Gives the host its address on `tap`, and sends a datagram with this `mark` to the guest.
fn send(tap: &str, mark: u8) {
    ip(&format!("address replace {HOST}/24 dev {tap}"));
    ip(&format!("neighbour replace 10.77.9.2 lladdr 02:00:00:00:00:07 dev {tap}"));
    let socket = UdpSocket::bind((HOST, 0)).unwrap();
    assert_eq!(socket.send_to(&[mark; 333], GUEST).unwrap(), 333);
    ip(&format!("address flush dev {tap}"));
}

/// Waits for the datagrams with these `marks`; the heads of the chains that were used until then.
fn receive(harness: &mut Harness, addresses: &[u64], marks: &[u8]) -> Vec<u32> {
    let (mut heads, mut found) = (Vec::new(), Vec::<u8>::new());
    while found != marks {
        for Used { head, len } in harness.wait_used(RX, 1) {
            heads.push(head);
            let packet = harness.fetch(addresses[head as usize], len as usize);
            found.extend(marks.iter().filter(|mark| packet.ends_with(&[**mark; 333])));
        }
    }
    heads
}

#[test]
fn the_kernel_keeps_away_while_it_is_saved_and_goes_on_where_it_was() {
    let Some(device) = skip::available(Capability::VhostNet, open("rvmmsave0")) else { return };
    let mut harness = Harness::started(device, 0, 64);
    let addresses: Vec<u64> = (0..48).map(|_| harness.allocate(2000, 0)).collect();
    for address in &addresses {
        harness.add_chain(RX, &[Buffer::writable(*address, 2000)]);
    }
    harness.kick(RX);
    send("rvmmsave0", 1);
    let mut before = receive(&mut harness, &addresses, &[1]);

    harness.core().drain();
    before.extend(harness.take_used(RX).iter().map(|used| used.head));
    let done = before.len() as u32;
    assert_eq!(before, (0..done).collect::<Vec<_>>());
    send("rvmmsave0", 2);
    // The guest sends a frame, too, just before it is stopped.
    let packet = harness.place(&[&[0; HEADER][..], &frame(3, 100)].concat());
    harness.add_chain(TX, &[Buffer::readable(packet, 112)]);
    harness.kick(TX);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(harness.take_used(RX), [], "nothing is written to memory");
    assert_eq!(harness.take_used(TX), []);
    let other = open("rvmmsave1").unwrap();
    let state = harness.save_stopped();
    assert_eq!((state.queues[0].next_avail, state.queues[0].next_used), (done as u16, done as u16));
    assert_eq!((state.queues[1].next_avail, state.queues[1].next_used), (0, 0));
    let mut restored = harness.restored(Arc::new(Mutex::new(other)), &state).unwrap();
    assert_eq!(restored.config(0, 6), harness.config(0, 6));

    harness.core().go_on();
    restored.resume();
    send("rvmmsave1", 4);
    send("rvmmsave0", 5);
    // What was sent to the one that was saved is its alone.
    let used = receive(&mut harness, &addresses, &[2, 5]);
    assert_eq!(used, (done..done + used.len() as u32).collect::<Vec<_>>());
    let used = receive(&mut restored, &addresses, &[4]);
    assert_eq!(used, (done..done + used.len() as u32).collect::<Vec<_>>());
    for harness in [&mut harness, &mut restored] {
        assert_eq!(harness.wait_used(TX, 1), [Used { head: 0, len: 0 }]);
        assert!(!harness.needs_reset());
    }
}
