//! How a connection to the broker is opened.

use std::time::Duration;

use roadbed_protocol::report::Presence;
use roadbed_protocol::{Millis, login, topics};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, LastWillProperties};
use rumqttc::v5::{ConnectionError, MqttOptions};

use super::LinkSettings;
use crate::clock::wall_now;

/// The broker keeps the session, with what it queued for us, this long.
const SESSION_EXPIRY_SECONDS: u32 = 3_600;
/// The will waits this long, so that a short break does not look like a dead agent.
const WILL_DELAY_SECONDS: u32 = 10;
/// A dead connection is noticed within one and a half of these.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A login token need only live until the broker has read it; minutes allow for clocks that differ.
const LOGIN_LIFETIME: Millis = Millis::from_mins(2);
/// Largest packet read: an envelope is at most 64 KiB.
const PACKET_BYTES_MAX: u32 = 256 * 1024;
/// Messages of ours without a broker's acknowledgement. Small, because a full window that meets a restarted broker is
/// where the client is known to wedge.
const IN_FLIGHT_MAX: u16 = 32;
/// Messages of the broker without an acknowledgement of ours.
const RECEIVE_MAX: u16 = 64;

/// Options with a fresh login token.
///
/// # Errors
/// [`login::LoginError`] when no token can be made, which does not happen for checked ids.
pub(super) fn fresh(settings: &LinkSettings) -> Result<MqttOptions, login::LoginError> {
    let token =
        login::sign(&settings.secret, &settings.agent, &settings.farm, wall_now(), LOGIN_LIFETIME)?;
    let agent = settings.agent.as_str();
    let mut options = MqttOptions::new(agent, settings.broker.host.as_str(), settings.broker.port);
    options
        .set_credentials(agent, token)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(SESSION_EXPIRY_SECONDS))
        .set_keep_alive(KEEP_ALIVE)
        .set_max_packet_size(Some(PACKET_BYTES_MAX))
        .set_receive_maximum(Some(RECEIVE_MAX))
        .set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX)
        .set_last_will(LastWill::new(
            topics::agent_will(&settings.farm, &settings.agent),
            presence(false),
            QoS::AtLeastOnce,
            true,
            Some(LastWillProperties {
                delay_interval: Some(WILL_DELAY_SECONDS),
                payload_format_indicator: None,
                message_expiry_interval: None,
                content_type: None,
                response_topic: None,
                correlation_data: None,
                user_properties: Vec::new(),
            }),
        ));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    Ok(options)
}

/// The body of a presence message.
pub(super) fn presence(online: bool) -> Vec<u8> {
    // A struct of one bool cannot fail to serialise; an empty body would only clear the topic.
    serde_json::to_vec(&Presence { online }).unwrap_or_default()
}

/// A connection error in one line for people, with what to look at.
pub(super) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => format!(
            "the broker refuses the login ({code:?}): check that the site lists this agent with the \
             public key of its key_file, and the clock of this machine"
        ),
        ConnectionError::Io(error) => format!("no connection: {error}"),
        ConnectionError::Timeout(_) => "no answer from the broker".into(),
        other => other.to_string(),
    }
}
