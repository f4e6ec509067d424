// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `net` of a cVM: what can be written, and every way in which it can be wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::net::Ipv4Addr;

use capstream_config::{Address, ConfigError, Deployment, Link, NetConfig, Protocol};

/// A file with a cVM for each of these lines, which are lines 2, 3 and so on.
fn read(nets: &[&str]) -> Result<Deployment, ConfigError> {
    let mut text = "cVMs:\n".to_owned();
    for (index, net) in nets.iter().enumerate() {
        let base = 0x2000_0000 + index * 0x400_0000;
        text += &format!(
            "  - {{ name: c{index}, args: a, isolation: {{ base: {base:#x}, size: 0x4000000 }}, {net} }}\n"
        );
    }
    Deployment::from_str(&text, "yaml.cfg")
}

fn net(text: &str) -> Option<NetConfig> {
    let deployment = read(&[text]).unwrap();
    deployment.cvms[0].net.clone()
}

#[track_caller]
fn refused(nets: &[&str], line: usize, parts: &[&str]) {
    let error = read(nets).expect_err("it should be refused");
    let message = error.to_string();
    assert_eq!(error.line(), Some(line), "{message}");
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

#[test]
fn a_word_says_where_it_leads() {
    assert_eq!(net("net: none"), None);
    assert_eq!(net("net: "), None);
    assert_eq!(net("net: { kind: none }"), None);
    let user = net("net: user").unwrap();
    assert_eq!(user.link, Link::User(Vec::new()));
    assert_eq!(user.address, Address::Dhcp);
    assert_eq!(user.line, 2);
    let tap = net("net: tap tap0").unwrap();
    assert_eq!(tap.link, Link::Tap("tap0".to_owned()));
    assert_eq!(tap.address, Address::Unset);
    let switch = net("net: switch lan").unwrap();
    assert_eq!(switch.link, Link::Switch("lan".to_owned()));
    assert_eq!(net("net: { kind: switch lan }").unwrap(), switch);
}

#[test]
fn a_mapping_says_more() {
    let user = net(
        "net: { kind: user, ports: [\"127.0.0.1:8080:80\", \"53:53/udp\"], dns: 9.9.9.9, mac: \"02:00:00:00:00:01\" }",
    )
    .unwrap();
    let Link::User(ports) = &user.link else {
        panic!("{user:?}");
    };
    assert_eq!(ports[0].host_address, Some(Ipv4Addr::LOCALHOST));
    assert_eq!((ports[0].host, ports[0].guest), (8080, 80));
    assert_eq!(ports[1].protocol, Protocol::Udp);
    assert_eq!(ports[1].text, "53:53/udp");
    assert_eq!(user.address, Address::Dhcp);
    assert_eq!(user.dns, [Ipv4Addr::new(9, 9, 9, 9)]);
    assert_eq!(user.mac, Some([2, 0, 0, 0, 0, 1]));
    let one = net("net: { kind: user, ports: \"80:80\" }").unwrap();
    assert!(matches!(one.link, Link::User(ports) if ports.len() == 1));

    let fixed = |text| net(text).unwrap().address;
    let gateway = |last| Address::Static {
        address: ADDRESS,
        prefix: 24,
        gateway: Some(Ipv4Addr::new(10, 0, 0, last)),
    };
    assert_eq!(
        fixed("net: { kind: user, address: 10.0.0.2/24 }"),
        gateway(1)
    );
    assert_eq!(
        fixed("net: { kind: tap t, address: 10.0.0.2/24, gateway: 10.0.0.9 }"),
        gateway(9)
    );
    assert_eq!(
        fixed("net: { kind: switch s, address: 10.0.0.2/24 }"),
        Address::Static {
            address: ADDRESS,
            prefix: 24,
            gateway: None
        }
    );
    assert_eq!(fixed("net: { kind: tap t, address: dhcp }"), Address::Dhcp);
    assert_eq!(fixed("net: { kind: user, address: none }"), Address::Unset);
}

#[test]
fn what_makes_no_sense_is_named() {
    let one = |net: &str, parts: &[&str]| refused(&[net], 2, parts);
    for text in [
        "tap",
        "tap0",
        "switch",
        "user x",
        "tap a b",
        "bridge br0",
        "\"\"",
    ] {
        one(&format!("net: {text}"), &["`net`", "`tap DEVICE`"]);
    }
    one("net: [user]", &["`net` is a list"]);
    one("net: { ports: \"1:1\" }", &["needs the key `kind`"]);
    one("net: { kind: user, prots: \"1:1\" }", &["prots", "`ports`"]);
    one(
        "net: { kind: user, ports: [\"80:80\", \"80:x\"] }",
        &["`ports` is `80:x`", "[ADDRESS:]PORT:PORT"],
    );
    one(
        "net: { kind: switch s, ports: \"80:80\" }",
        &["no `ports` but with `kind: user`"],
    );
    one("net: { kind: switch s, address: dhcp }", &["`address`"]);
    one("net: { kind: user, address: 10.0.0.2 }", &["`address`"]);
    one(
        "net: { kind: user, gateway: 10.0.0.1 }",
        &["no `gateway` without"],
    );
    for gateway in ["10.0.0.2", "10.0.1.1", "10.0.0.255", "x"] {
        one(
            &format!("net: {{ kind: tap t, address: 10.0.0.2/24, gateway: {gateway} }}"),
            &["`gateway`", "another address of the same network"],
        );
    }
    one(
        "net: { kind: user, dns: localhost }",
        &["`dns` is `localhost`"],
    );
    one(
        "net: { kind: user, dns: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4] }",
        &["`dns`", "3 addresses at most"],
    );
    one(
        "net: { kind: user, mac: \"01:00:00:00:00:00\" }",
        &["`mac`"],
    );
}

#[test]
fn a_port_of_the_host_is_published_once() {
    let a = "net: { kind: user, ports: [\"8080:80\"] }";
    read(&[a, "net: { kind: user, ports: [\"8080:80/udp\"] }"]).unwrap();
    refused(
        &[a, "net: { kind: user, ports: [\"127.0.0.1:8080:81\"] }"],
        3,
        &["`127.0.0.1:8080:81`", "`c0` publishes `8080:80` on line 2"],
    );
    refused(
        &["net: { kind: user, ports: [\"8080:80\", \"8080:81\"] }"],
        2,
        &["`8080:81`", "`c0`"],
    );
}
