//! Prometheus' remote write, version 1: a WriteRequest of remote.proto in a snappy block.

use std::net::SocketAddr;

use super::http;

/// A series to write: labels with `__name__`, sorted by name, and points of milliseconds and value.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: Vec<(String, String)>,
    pub points: Vec<(i64, f64)>,
}

/// Writes the series, some at a time.
pub fn write(to: SocketAddr, series: &[Series]) {
    const HEADERS: &str = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
                           X-Prometheus-Remote-Write-Version: 0.1.0\r\n";
    for part in series.chunks(2_000) {
        let mut request = Vec::new();
        for one in part {
            let mut encoded = Vec::new();
            for (name, value) in &one.labels {
                let mut label = Vec::new();
                field(&mut label, 1, name.as_bytes());
                field(&mut label, 2, value.as_bytes());
                field(&mut encoded, 1, &label);
            }
            for &(time, value) in &one.points {
                let mut sample = vec![0x09];
                sample.extend(value.to_le_bytes());
                sample.push(0x10);
                varint(&mut sample, time as u64);
                field(&mut encoded, 2, &sample);
            }
            field(&mut request, 1, &encoded);
        }
        http::post(to, "/api/v1/write", HEADERS, &snappy(&request)).expect("written");
    }
}

fn varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push((number as u8) | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn field(to: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    to.push(number << 3 | 2);
    varint(to, bytes.len() as u64);
    to.extend(bytes);
}

/// A block of nothing but literals: valid, if not smaller.
fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(bytes.len() + bytes.len() / 10_000 + 16);
    varint(&mut block, bytes.len() as u64);
    for part in bytes.chunks(0x1_0000) {
        block.push(61 << 2);
        block.extend(((part.len() - 1) as u16).to_le_bytes());
        block.extend(part);
    }
    block
}
