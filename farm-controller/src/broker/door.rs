//! The roster as the embedded broker's door: logins and topics. Built-in methods of the library are not used; its
//! certificate provider believes a fingerprint written in the client id.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mqtt5::broker::{AuthProvider, AuthResult};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::types::ReasonCode;
use roadbed_protocol::FarmId;

use super::access::{Knock, Refusal, Roster};
use crate::clock::wall_now;

/// Refused logins per client id and address before it must wait: a mistyped key is tried a few times, a guess often.
const FAILURES_MAX: u32 = 10;
/// How long it waits then.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Client ids and addresses remembered; the oldest are forgotten first when strangers fill it.
const FAILURES_REMEMBERED_MAX: usize = 4_096;

/// The door of one farm.
pub(super) struct Door {
    farm: FarmId,
    roster: Roster,
    failures: Mutex<HashMap<(String, IpAddr), (u32, Instant)>>,
}

impl Door {
    pub(super) fn new(farm: FarmId, roster: Roster) -> Self {
        Self { farm, roster, failures: Mutex::new(HashMap::new()) }
    }

    fn admit(&self, connect: &ConnectPacket, from: SocketAddr) -> AuthResult {
        let key = (connect.client_id.clone(), from.ip());
        if self.must_wait(&key) {
            return AuthResult::fail(ReasonCode::ConnectionRateExceeded);
        }
        let knock = Knock {
            client_id: &connect.client_id,
            user: connect.username.as_deref(),
            password: connect.password.as_deref(),
            will_topic: connect.will.as_ref().map(|will| will.topic.as_str()),
            // Login tokens are checked against the wall clock, never the farm's.
            now: wall_now(),
        };
        match self.roster.admit(&self.farm, knock) {
            Ok(agent) => AuthResult::success_with_user(agent.to_string()),
            Err(refusal) => {
                tracing::warn!(client = %connect.client_id, %from, %refusal, "login refused");
                self.remember_failure(key);
                AuthResult::fail(match refusal {
                    Refusal::ClientId => ReasonCode::ClientIdentifierNotValid,
                    Refusal::Credentials(_) => ReasonCode::BadUsernameOrPassword,
                    Refusal::Will => ReasonCode::NotAuthorized,
                })
            }
        }
    }

    fn must_wait(&self, key: &(String, IpAddr)) -> bool {
        let Ok(failures) = self.failures.lock() else {
            return true;
        };
        failures
            .get(key)
            .is_some_and(|(count, last)| *count >= FAILURES_MAX && last.elapsed() < FAILURE_WINDOW)
    }

    fn remember_failure(&self, key: (String, IpAddr)) {
        let Ok(mut failures) = self.failures.lock() else {
            return;
        };
        if failures.len() >= FAILURES_REMEMBERED_MAX {
            failures.retain(|_, (_, last)| last.elapsed() < FAILURE_WINDOW);
        }
        if failures.len() < FAILURES_REMEMBERED_MAX || failures.contains_key(&key) {
            let entry = failures.entry(key).or_insert((0, Instant::now()));
            let fresh = entry.1.elapsed() >= FAILURE_WINDOW;
            *entry = (if fresh { 1 } else { entry.0.saturating_add(1) }, Instant::now());
        }
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl AuthProvider for Door {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        client_addr: SocketAddr,
    ) -> Answer<'a, mqtt5::error::Result<AuthResult>> {
        Box::pin(async move { Ok(self.admit(connect, client_addr)) })
    }

    fn authorize_publish<'a>(
        &'a self,
        client_id: &str,
        user_id: Option<&'a str>,
        topic: &'a str,
    ) -> Answer<'a, bool> {
        let allowed =
            user_id == Some(client_id) && self.roster.may_publish(&self.farm, client_id, topic);
        Box::pin(async move { allowed })
    }

    fn authorize_subscribe<'a>(
        &'a self,
        client_id: &str,
        user_id: Option<&'a str>,
        topic_filter: &'a str,
    ) -> Answer<'a, bool> {
        let allowed = user_id == Some(client_id)
            && self.roster.may_subscribe(&self.farm, client_id, topic_filter);
        Box::pin(async move { allowed })
    }
}
