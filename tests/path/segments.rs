//! Headers that lie split over several segments of a buffer (A9): whole groups once more, in small segments.

use std::process::Command;

use fullnat::path::heap::Shape;

/// Bytes of the first segment, for a child of this test's own executable.
const VARIABLE: &str = "FULLNAT_TEST_FIRST_SEGMENT";

/// How packets lie in memory where a test does not say it.
pub fn usual_shape() -> Shape {
    let first_segment = std::env::var(VARIABLE).map_or(usize::MAX, |bytes| bytes.parse().expect("a number"));
    Shape { first_segment, ..Shape::default() }
}

/// 20 bytes end within the IP header, 40 within the IPv6 header or the ports, 60 within an ICMP error's quote.
#[test]
fn conformance_a9_groups_c_d_f_i_and_the_random_walk_in_small_segments() {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    for first_segment in ["20", "40", "60"] {
        let child = Command::new(std::env::current_exe().expect("this executable"))
            .args(["ip::", "mtu::", "icmp::", "tcp::", "tcp_end::", "random_walk::"])
            .env(VARIABLE, first_segment)
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "in segments of {first_segment}: {said}");
        let passed: u32 = said
            .split_once("test result: ok. ")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
            .expect("a sum of tests");
        assert!(passed > 50, "{said}");
    }
}
