//! Frames with a VLAN tag: as they are on the wire, and as they are when the device has taken the tag off and tells it beside
//! the packet. Kernels may lack VLAN devices; what the tap sees is the same without.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use darkport_exporter::port::Port;

use crate::lab::{Lab, Namespace, run, until};
use crate::packets::{ipv4, tcp, udp};
use crate::{DARK, HERE, THERE};

/// Ethernet type, and tag control information: priority 3 in VLAN 0, which a host takes for its own untagged network.
const CTAG: u16 = 0x8100;
const STAG: u16 = 0x88a8;
const PRIORITY: u16 = 3 << 13;

/// Sends frames, given in hexadecimal, one a line.
const SEND: &str = "import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for frame in sys.stdin: s.send(bytes.fromhex(frame))
";

/// Waits for a TCP packet to a port and tells its type and the tag that the device took off (packet(7): PACKET_AUXDATA).
const WATCH: &str = "import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(263, 8, 1)
s.bind((sys.argv[1], 3))
print('ready', flush=True)
while True:
    frame, control, _, _ = s.recvmsg(2048, 256)
    if frame[12:14] == b'\\x08\\x00' and frame[23] == 6 and frame[36:38] == struct.pack('!H', int(sys.argv[2])):
        status, _, _, _, _, tci, tpid = struct.unpack('IIIHHHH', control[0][2][:20])
        print('tag', '%x' % tci, '%x' % tpid, 'valid' if status & 0x10 else 'none', flush=True)
        break
";

/// Puts a tag beside each packet that leaves, as a device does that adds tags itself.
const PUSH: &str = "typedef unsigned short u16;
static long (*push)(void *skb, u16 protocol, u16 tag) = (void *)18;
__attribute__((section(\"tc\"), used)) int tag(void *skb) { push(skb, __builtin_bswap16(PROTOCOL), TAG); return 0; }
char licence[] __attribute__((section(\"license\"))) = \"GPL\";
";

fn mac(device: &str, within: Option<&Namespace>) -> String {
    let path = format!("cat /sys/class/net/{device}/address");
    // A thread that changed its network namespace still has the /sys of before.
    let text = match within {
        Some(namespace) => namespace.run(&path),
        None => run(&format!("ip -o link show {device}"))
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .nth(1)
            .unwrap()
            .to_owned(),
    };
    text.trim().replace(':', "")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A packet in a frame with these tags before it.
fn frame(addresses: &str, tags: &[(u16, u16)], packet: &[u8]) -> String {
    let mut head = addresses.to_owned();
    for (protocol, tag) in tags {
        let _ = write!(head, "{protocol:04x}{tag:04x}");
    }
    // What a raw socket would fill in.
    let mut packet = packet.to_vec();
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    let sum = packet[..20]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    format!("{head}0800{}\n", hex(&packet))
}

#[test]
#[ignore = "needs root"]
fn a_tag_on_the_wire_is_looked_behind() {
    let lab = Lab::new("vlan-wire");
    let neighbour = lab.neighbour();
    let addresses = mac("here", None) + &mac("there", Some(&neighbour));
    let (from, to) = (IpAddr::V4(THERE), IpAddr::V4(HERE));
    let syn = ipv4(
        THERE,
        HERE,
        6,
        &[],
        0,
        &tcp(from, to, 5000, DARK.number, 0x02),
    );
    let ack = ipv4(
        THERE,
        HERE,
        6,
        &[],
        0,
        &tcp(from, to, 5000, DARK.number, 0x10),
    );
    let end = ipv4(THERE, HERE, 17, &[], 0, &udp(from, to, 4242));
    let frames: String = [
        // Attempts that the stack refuses.
        frame(&addresses, &[], &syn),
        frame(&addresses, &[(CTAG, PRIORITY)], &syn),
        frame(&addresses, &[(CTAG, 0)], &syn),
        // An attempt in a VLAN that this host is not in: it has reached the interface.
        frame(&addresses, &[(CTAG, 10)], &syn),
        frame(&addresses, &[(STAG, 10)], &syn),
        // None.
        frame(&addresses, &[(CTAG, PRIORITY)], &ack),
        frame(&addresses, &[(CTAG, PRIORITY)], &end),
    ]
    .concat();
    let started = lab.start();
    let mut sender = Command::new("ip")
        .args([
            "netns",
            "exec",
            &neighbour.name,
            "python3",
            "-c",
            SEND,
            "there",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut sender.stdin.take().unwrap(), frames.as_bytes()).unwrap();
    assert!(sender.wait().unwrap().success());
    until("the last packet came", || {
        started.counts(Port::udp(4242)).refused == Some(1)
    });
    let counts = started.counts(DARK);
    assert_eq!(counts.attempts, Some(5));
    assert_eq!(counts.refused, Some(3));
    assert_eq!(started.kernel.lost(), 0);
}

/// Has every packet that leaves a namespace's device carry a tag beside it.
fn push(neighbour: &Namespace, device: &str, tag: u16) {
    let folder = tempfile::tempdir().unwrap();
    let (source, object) = (folder.path().join("push.c"), folder.path().join("push.o"));
    fs::write(&source, PUSH).unwrap();
    run(&format!(
        "clang -target bpfel -O2 -DPROTOCOL={CTAG} -DTAG={tag} -c {} -o {}",
        source.display(),
        object.display()
    ));
    neighbour.run(&format!("tc qdisc replace dev {device} clsact"));
    neighbour.run(&format!("tc filter del dev {device} egress"));
    neighbour.run(&format!(
        "tc filter add dev {device} egress bpf da obj {} sec tc",
        object.display()
    ));
}

fn watcher(port: Port) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut watcher = Command::new("python3")
        .args(["-c", WATCH, "here", &port.number.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(watcher.stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (watcher, told)
}

#[test]
#[ignore = "needs root"]
fn a_tag_that_the_device_has_taken_off_changes_nothing() {
    let lab = Lab::new("vlan-stripped");
    let neighbour = lab.neighbour();
    let started = lab.start();
    let other = Port::tcp(3477);
    for (tag, port, is_own) in [(PRIORITY, DARK, true), (10, other, false)] {
        let (mut watcher, mut told) = watcher(port);
        push(&neighbour, "there", tag);
        let refused = neighbour.within(|| {
            let mut refused = 0;
            for _ in 0..10 {
                // In a VLAN that this host is not in nobody answers.
                let patience = std::time::Duration::from_millis(if is_own { 20_000 } else { 5 });
                let to = (HERE, port.number).into();
                let error = TcpStream::connect_timeout(&to, patience).unwrap_err();
                refused += u64::from(error.kind() == std::io::ErrorKind::ConnectionRefused);
            }
            refused
        });
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        assert_eq!(
            line,
            format!("tag {tag:x} {CTAG:x} valid\n"),
            "the device told the tag"
        );
        assert!(watcher.wait().unwrap().success());
        assert_eq!(refused, if is_own { 10 } else { 0 });
        let counts = started.counts(port);
        assert_eq!(counts.attempts, Some(10), "{port}");
        assert_eq!(counts.refused, Some(refused), "{port}");
    }
    assert_eq!(started.kernel.lost(), 0);
}
