//! nftables transactions and connection tracking in real network namespaces. Needs root.

use std::net::{SocketAddr, UdpSocket};

use network::conntrack::Conntrack;
use network::netns::Namespace;
use network::nft::{
    Chain, ChainKind, Element, ElementData, Expr, Family, Hook, Nft, Register, Rule, Set, SetFlags, SetType, Table,
    Transaction, Verdict, priority, protocol,
};
use network::rtnl::{Changes, Rtnl};

fn in_a_namespace(test: impl FnOnce() + Send) {
    Namespace::anonymous().expect("network namespaces need root").run(test).unwrap();
}

fn table() -> Table {
    Table::new(Family::Ip, "test")
}

fn numbers(range: std::ops::Range<u32>) -> Vec<Element> {
    range.map(|n| Element::value(n.to_be_bytes().into(), (n + 1).to_ne_bytes().into())).collect()
}

fn add_map(t: &mut Transaction) {
    t.add_table(&table(), Some("a comment"));
    t.add_set(&table(), &Set::map("numbers", vec![SetType::Ipv4Address], vec![SetType::Number]));
}

#[test]
fn what_is_committed_is_there_and_comes_back_the_same() {
    in_a_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut t = Transaction::new();
        add_map(&mut t);
        t.add_chain(&table(), &Chain::regular("target"));
        t.add_set(&table(), &Set::verdict_map("verdicts", vec![SetType::Protocol, SetType::Port]));
        let elements = numbers(0..5);
        t.add_elements(&table(), "numbers", &elements);
        let verdicts = [
            Element::verdict(Element::fields(&[&[6], &80u16.to_be_bytes()]), Verdict::Goto("target".into())),
            Element::verdict(Element::fields(&[&[17], &53u16.to_be_bytes()]), Verdict::Drop),
        ];
        t.add_elements(&table(), "verdicts", &verdicts);
        nft.commit(t).unwrap();

        assert_eq!(nft.tables().unwrap(), [(table(), "a comment".to_owned())]);
        assert_eq!(nft.chains(&table()).unwrap(), ["target"]);
        assert_eq!(nft.sets(&table()).unwrap(), ["numbers", "verdicts"]);
        let sorted = |mut elements: Vec<Element>| {
            elements.sort();
            elements
        };
        assert_eq!(sorted(nft.elements(&table(), "numbers").unwrap()), elements);
        assert_eq!(sorted(nft.elements(&table(), "verdicts").unwrap()), verdicts);
    });
}

#[test]
fn a_refused_transaction_names_its_culprit_and_changes_nothing() {
    in_a_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut t = Transaction::new();
        add_map(&mut t);
        t.add_rule(&table(), "missing", &Rule::new().drop());
        t.flush_set(&table(), "missing too");
        let error = nft.commit(t).unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert!(
            error
                .to_string()
                .starts_with("the kernel refused to add a rule to the chain \"missing\" of the table \"test\": "),
            "{error}"
        );
        assert_eq!(nft.tables().unwrap(), []);
        // The socket still works.
        let mut t = Transaction::new();
        add_map(&mut t);
        nft.commit(t).unwrap();
        assert_eq!(nft.tables().unwrap().len(), 1);
    });
}

#[test]
fn an_element_cannot_lead_to_two_places_but_can_be_replaced() {
    in_a_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut t = Transaction::new();
        add_map(&mut t);
        let old = Element::value(vec![10, 0, 0, 1], 1u32.to_ne_bytes().into());
        let new = Element { data: ElementData::Value(2u32.to_ne_bytes().into()), ..old.clone() };
        t.add_elements(&table(), "numbers", [&old]);
        nft.commit(t).unwrap();

        let mut t = Transaction::new();
        t.add_elements(&table(), "numbers", [&new]);
        assert!(nft.commit(t).unwrap_err().is_exists());
        let mut t = Transaction::new();
        t.delete_elements(&table(), "numbers", [&old]);
        t.add_elements(&table(), "numbers", [&new]);
        nft.commit(t).unwrap();
        assert_eq!(nft.elements(&table(), "numbers").unwrap(), [new]);
    });
}

#[test]
fn a_transaction_of_many_elements_is_one() {
    in_a_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut t = Transaction::new();
        add_map(&mut t);
        t.add_elements(&table(), "numbers", &numbers(0..100_000));
        nft.commit(t).unwrap();
        assert_eq!(nft.elements(&table(), "numbers").unwrap().len(), 100_000);

        let mut t = Transaction::new();
        t.replace_table(&table(), None);
        add_map(&mut t);
        t.add_elements(&table(), "numbers", &numbers(7..9));
        nft.commit(t).unwrap();
        assert_eq!(nft.elements(&table(), "numbers").unwrap().len(), 2);
    });
}

#[test]
fn interval_sets_take_ranges() {
    in_a_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let mut t = Transaction::new();
        t.add_table(&table(), None);
        let flags = SetFlags { interval: true, ..SetFlags::default() };
        t.add_set(&table(), &Set::of("ranges", vec![SetType::Ipv4Address]).with(flags));
        for range in ["10.0.0.0/8", "192.0.2.128/25", "255.255.255.0/24"] {
            t.add_elements(&table(), "ranges", &Element::range(range.parse().unwrap()));
        }
        nft.commit(t).unwrap();
        let starts = nft.elements(&table(), "ranges").unwrap().into_iter().filter(|e| !e.range_end && e.key != [0; 4]);
        assert_eq!(starts.count(), 3);
    });
}

/// A namespace in which UDP to 10.9.9.9:53 is answered by a socket at 127.0.0.1.
fn redirect(nft: &mut Nft, to: SocketAddr) {
    let mut rtnl = Rtnl::open().unwrap();
    let lo = rtnl.index("lo").unwrap();
    let mut changes = Changes::new();
    changes.set_up(lo);
    changes.add_link_route("10.9.9.0/24".parse().unwrap(), lo, None);
    rtnl.apply(&changes).unwrap();
    let mut t = Transaction::new();
    t.replace_table(&table(), None);
    t.add_chain(&table(), &Chain::base("output", ChainKind::Nat, Hook::Output, priority::DSTNAT));
    let (address, port) = (Register::new(4), Register::new(5));
    let rule = Rule::new()
        .protocol(protocol::UDP)
        .destination("10.9.9.9/32".parse().unwrap())
        .expr(Expr::Immediate { to: address, value: vec![127, 0, 0, 1] })
        .expr(Expr::Immediate { to: port, value: to.port().to_be_bytes().into() })
        .expr(Expr::DestinationNat { family: Family::Ip, address, port: Some(port) });
    t.add_rule(&table(), "output", &rule);
    nft.commit(t).unwrap();
}

#[test]
fn flows_are_found_and_forgotten() {
    in_a_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let patience = Some(std::time::Duration::from_secs(5));
        let mut rtnl = Rtnl::open().unwrap();
        let mut up = Changes::new();
        up.set_up(rtnl.index("lo").unwrap());
        rtnl.apply(&up).unwrap();
        let [old, new] = [0, 1].map(|_| {
            let server = UdpSocket::bind("127.0.0.1:0").unwrap();
            server.set_read_timeout(patience).unwrap();
            server
        });
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        redirect(&mut nft, old.local_addr().unwrap());
        client.send_to(b"1", "10.9.9.9:53").unwrap();
        old.recv_from(&mut [0; 8]).unwrap();

        let mut conntrack = Conntrack::open().unwrap();
        let flows = conntrack.flows(false, protocol::UDP).unwrap();
        let flow = flows.iter().find(|flow| flow.original.destination_port == 53).unwrap();
        assert_eq!(flow.original.destination.to_string(), "10.9.9.9");
        assert_eq!(flow.original.source_port, client.local_addr().unwrap().port());
        assert_eq!(flow.reply.source.to_string(), "127.0.0.1");
        assert_eq!(flow.reply.source_port, old.local_addr().unwrap().port());
        assert_eq!(conntrack.flows(false, protocol::TCP).unwrap(), []);

        // New rules do not reach a flow that is known, until it is forgotten.
        redirect(&mut nft, new.local_addr().unwrap());
        client.send_to(b"2", "10.9.9.9:53").unwrap();
        old.recv_from(&mut [0; 8]).unwrap();
        conntrack.delete(&[*flow, *flow]).unwrap();
        client.send_to(b"3", "10.9.9.9:53").unwrap();
        new.recv_from(&mut [0; 8]).unwrap();
    });
}
