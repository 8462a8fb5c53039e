//! From the first byte to the open channel, and what a pool can do instead of answering.

use farm_tests::stratum2::pool::Manners;
use farm_tests::stratum2::wire::Authority;
use roadbed_agent::miner::dialect::{Action, Cause, Dialect};
use stratum_core::common_messages_sv2::{ChannelEndpointChanged, ReconnectOwned};
use stratum_core::mining_sv2::{
    OpenExtendedMiningChannelSuccessOwned, OpenMiningChannelErrorOwned,
};
use stratum_core::parsers_sv2::{AnyMessageOwned, CommonMessagesOwned, MiningOwned};

use super::{LATER, Pair, authority, unix};

#[test]
fn a_pool_with_another_key_is_refused_unless_anybody_will_do() {
    let other = Authority::new([8; 32]).unwrap().address_key();
    let mut pair = Pair::new(&other, Manners::default(), unix);
    pair.connect();
    let (cause, reason) = pair.end();
    assert_eq!(cause, Cause::NotLetIn);
    assert!(reason.contains("not signed by the authority key"), "{reason}");
    assert!(!pair.report().mining);
    assert_eq!(pair.pool.flags, 0, "it was told nothing");

    let mut pair = Pair::new("insecure", Manners::default(), unix);
    pair.connect();
    assert!(pair.report().mining);
}

#[test]
fn a_certificate_out_of_date_is_told_from_a_wrong_key() {
    for clock in [|| LATER, || 1_000_000] {
        let mut pair = Pair::new(&authority().address_key(), Manners::default(), clock);
        pair.connect();
        let reason = pair.end().1;
        assert!(reason.contains("this machine's clock says"), "{reason}");
    }
}

#[test]
fn we_adapt_to_what_a_pool_offers() {
    let (rolling, standard, extended_only, fixed) = (4, 1, 2, 1);
    // It knows no version rolling: the second connection does not insist.
    let path = format!("{}?channel=standard", authority().address_key());
    let manners = Manners { refused_flags: rolling, ..Manners::default() };
    let mut pair = Pair::new(&path, manners, unix);
    pair.connect();
    assert!(pair.end().1.contains("trying again without"));
    pair.reconnect();
    assert_eq!((pair.pool.flags, pair.report().mining), (standard, true));

    // It opens extended channels only, and says so late, or early.
    for manners in [
        Manners { consent_flags: extended_only, ..Manners::default() },
        Manners { refused_flags: standard, ..Manners::default() },
    ] {
        let mut pair = Pair::new(&path, manners, unix);
        pair.connect();
        assert!(pair.end().1.contains("extended channels only"));
        pair.reconnect();
        assert_eq!((pair.pool.flags, pair.report().mining), (rolling, true));
    }

    // It wants the version left alone.
    let (_, work) = Pair::mining(
        "grouped",
        Manners { consent_flags: fixed, version_rolling: false, ..Manners::default() },
    );
    assert_eq!(work.version_mask, 0);
    let (_, work) =
        Pair::mining("extended", Manners { version_rolling: false, ..Manners::default() });
    assert_eq!(work.version_mask, 0);
}

#[test]
fn refusals_are_passed_on_to_people() {
    let manners = Manners { refused_flags: 4, ..Manners::default() };
    let mut pair = Pair::new("insecure", manners, unix);
    pair.connect();
    pair.pool.manners.refused_flags = u32::MAX;
    pair.reconnect();
    // Nothing is asked for any more, so nothing can be refused.
    assert!(pair.report().mining);

    let (mut pair, _) = Pair::mining("extended", Manners::default());
    pair.session.disconnected();
    let hello = pair.session.connected(pair.now);
    let mut pool = farm_tests::stratum2::pool::PoolDouble::new(&authority(), Manners::default());
    let pool = pool.as_mut().unwrap();
    let [Action::Send(hello)] = &hello[..] else { panic!("{hello:?}") };
    let actions = pair.session.bytes(pair.now, &pool.take(hello).unwrap());
    let [Action::Send(setup)] = &actions[..] else { panic!("{actions:?}") };
    let open = pair.session.bytes(pair.now, &pool.take(setup).unwrap());
    assert!(matches!(open[..], [Action::Send(_)]));
    let refusal = OpenMiningChannelErrorOwned {
        request_id: 1,
        error_code: "unknown-user".try_into().unwrap(),
    };
    let refusal = pool.say(MiningOwned::OpenMiningChannelError(refusal)).unwrap();
    pair.asked = pair.session.bytes(pair.now, &refusal);
    assert!(pair.end().1.contains("unknown-user"));
    assert_eq!(pair.report().told, "unknown-user");
}

#[test]
fn a_channel_on_which_nothing_could_be_found_is_none() {
    let mut pair = Pair::new("insecure", Manners { target: [0; 32], ..Manners::default() }, unix);
    pair.connect();
    assert!(pair.end().1.contains("InvalidTarget"), "{:?}", pair.end());

    // An extranonce longer than a coinbase can hold, and a channel for somebody else's request.
    for (request_id, extranonce_size, closed) in [(1, 60_000, true), (2, 8, false)] {
        let mut pair = Pair::new("insecure", Manners::default(), unix);
        let hello = pair.session.connected(pair.now);
        let [Action::Send(hello)] = &hello[..] else { panic!("{hello:?}") };
        let actions = pair.session.bytes(pair.now, &pair.pool.take(hello).unwrap());
        let [Action::Send(setup)] = &actions[..] else { panic!("{actions:?}") };
        let _ = pair.session.bytes(pair.now, &pair.pool.take(setup).unwrap());
        let opened = OpenExtendedMiningChannelSuccessOwned {
            request_id,
            channel_id: 1,
            target: [0xFF; 32].into(),
            extranonce_size,
            extranonce_prefix: vec![1; 4].try_into().unwrap(),
            group_channel_id: 2,
        };
        let opened = pair.pool.say(MiningOwned::OpenExtendedMiningChannelSuccess(opened)).unwrap();
        pair.asked = pair.session.bytes(pair.now, &opened);
        assert_eq!(!pair.asked.is_empty(), closed, "{:?}", pair.asked);
        assert!(!pair.report().mining);
    }
}

#[test]
fn silence_is_given_up_on_at_every_stage() {
    let closed = |pair: &Pair| matches!(pair.asked.last(), Some(Action::Close { .. }));
    let mut pair = Pair::new("insecure", Manners::default(), unix);
    let hello = pair.session.connected(pair.now);
    pair.tick(15);
    assert!(!closed(&pair));
    pair.tick(1);
    assert_eq!(pair.end().0, Cause::Silent);
    assert!(pair.end().1.contains("template"), "{:?}", pair.end());

    let mut pair = Pair::new("insecure", Manners::default(), unix);
    let hello_again = pair.session.connected(pair.now);
    assert_ne!(hello, hello_again, "no two connections share a key");
    let [Action::Send(hello)] = &hello_again[..] else { panic!("{hello_again:?}") };
    let answer = pair.pool.take(hello).unwrap();
    let _ = pair.session.bytes(pair.now, &answer);
    pair.tick(31);
    assert!(pair.end().1.contains("channel"), "{:?}", pair.end());

    // An open channel may be quiet for long; it is asked once, by telling our rate.
    let (mut pair, _) = Pair::mining("extended", Manners::default());
    for _ in 0..599 {
        pair.tick(1);
    }
    assert!(pair.asked.is_empty());
    assert_eq!(pair.pool.heard.len(), 1, "{:?}", pair.pool.heard);
    pair.tick(2);
    assert_eq!(pair.end().0, Cause::Silent);
}

#[test]
fn a_pool_may_move_us_on_its_own_host_only() {
    for (host, port, want) in
        [("", 0, Some(("pool", 1))), ("pool", 99, Some(("pool", 99))), ("evil.example", 99, None)]
    {
        let (mut pair, _) = Pair::mining("extended", Manners::default());
        let order = ReconnectOwned { new_host: host.try_into().unwrap(), new_port: port };
        let order = AnyMessageOwned::Common(CommonMessagesOwned::Reconnect(order));
        let bytes = pair.pool.server().seal(order).unwrap();
        pair.hear(&bytes);
        let Some(Action::Close { to, cause, .. }) = pair.asked.last() else {
            panic!("{:?}", pair.asked)
        };
        assert_eq!(*cause, Cause::Asked);
        assert_eq!(*to, want.map(|(host, port)| (host.to_owned(), port)), "{host}:{port}");
    }
    // That the other end of a channel moved is nothing to us.
    let (mut pair, _) = Pair::mining("extended", Manners::default());
    let note = ChannelEndpointChanged { channel_id: 7 };
    let note = AnyMessageOwned::Common(CommonMessagesOwned::ChannelEndpointChanged(note));
    let bytes = pair.pool.server().seal(note).unwrap();
    pair.hear(&bytes);
    assert!(pair.asked.is_empty() && pair.report().garbage == 0);
}

#[test]
fn a_pool_that_is_well_is_told_that_we_leave() {
    for channel in ["extended", "standard", "grouped"] {
        let (mut pair, _) = Pair::mining(channel, Manners::default());
        let actions = pair.session.leaving();
        pair.pass(actions);
        assert_eq!(pair.pool.heard.len(), 1, "{:?}", pair.pool.heard);
        assert!(pair.pool.heard[0].contains("CloseChannel"), "{:?}", pair.pool.heard);
        assert!(pair.pool.heard[0].contains("leaving"), "{:?}", pair.pool.heard);
    }
    // Before there is a channel there is nothing to close.
    let mut pair = Pair::new(&authority().address_key(), Manners::default(), unix);
    let _ = pair.session.connected(pair.now);
    assert_eq!(pair.session.leaving(), []);
}
