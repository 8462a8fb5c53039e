//! The answering side of a Stratum V2 connection as a state: bytes in, messages out, and back. No socket.

use std::time::Duration;

use stratum_core::bitcoin::base58;
use stratum_core::bitcoin::secp256k1::{Keypair, Secp256k1};
use stratum_core::codec_sv2::{
    Decoded, Decrypted, Handshake, MessageFrame, NoiseDecoder, NoiseEncoder, TransportDecryptState,
    TransportEncryptState,
};
use stratum_core::noise_sv2::Responder;
use stratum_core::parsers_sv2::{AnyMessage, AnyMessageOwned};

/// How long a certificate of ours is good.
const VALIDITY: Duration = Duration::from_secs(3_600);

/// An authority's key pair.
#[derive(Debug, Clone, Copy)]
pub struct Authority {
    public: [u8; 32],
    secret: [u8; 32],
}

/// A peer that does not speak the protocol, or a message that cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("Stratum V2: {0}")]
pub struct WireError(String);

impl WireError {
    /// A value that its type on the wire cannot hold.
    #[must_use]
    pub fn from_codec(error: &stratum_core::binary_sv2::Error) -> Self {
        Self(error.to_string())
    }
}

fn wrong(error: impl std::fmt::Debug) -> WireError {
    WireError(format!("{error:?}"))
}

impl Authority {
    /// The pair of this secret.
    ///
    /// # Errors
    /// For a secret that is zero or beyond the curve's order.
    pub fn new(secret: [u8; 32]) -> Result<Self, WireError> {
        let pair = Keypair::from_seckey_slice(&Secp256k1::new(), &secret).map_err(wrong)?;
        Ok(Self { public: pair.x_only_public_key().0.serialize(), secret })
    }

    /// The public key as it stands in addresses.
    #[must_use]
    pub fn address_key(&self) -> String {
        base58::encode_check(&[&[1, 0][..], &self.public].concat())
    }
}

enum State {
    Shaking(Box<Responder>),
    Open { seal: TransportEncryptState, unseal: TransportDecryptState },
    Over,
}

/// The answering side of one connection.
pub struct Server {
    state: State,
    decoder: NoiseDecoder,
    encoder: NoiseEncoder,
    pending: Vec<u8>,
}

impl Server {
    /// A connection on which nothing was said yet; its certificate will be signed by `authority`.
    ///
    /// # Errors
    /// For a key pair that is none.
    pub fn new(authority: &Authority) -> Result<Self, WireError> {
        let responder =
            Responder::from_authority_kp(&authority.public, &authority.secret, VALIDITY)
                .map_err(wrong)?;
        let mut decoder = NoiseDecoder::new();
        decoder.next_handshake_frame::<Responder>().map_err(wrong)?;
        let encoder = NoiseEncoder::new();
        Ok(Self { state: State::Shaking(responder), decoder, encoder, pending: Vec::new() })
    }

    /// Takes bytes; gives what must be answered at once, and the messages that are whole.
    ///
    /// # Errors
    /// The connection is over.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(Vec<u8>, Vec<AnyMessageOwned>), WireError> {
        self.pending.extend_from_slice(bytes);
        let (mut reply, mut messages) = (Vec::new(), Vec::new());
        loop {
            let wanted = self.decoder.writable_len();
            if self.pending.len() < wanted {
                return Ok((reply, messages));
            }
            let rest = self.pending.split_off(wanted);
            self.decoder.writable().copy_from_slice(&self.pending);
            self.pending = rest;
            match std::mem::replace(&mut self.state, State::Over) {
                State::Shaking(responder) => {
                    let decoded =
                        self.decoder.next_handshake_frame::<Responder>().map_err(wrong)?;
                    let Decoded::Frame(hello) = decoded else {
                        self.state = State::Shaking(responder);
                        continue;
                    };
                    let hello = hello.payload().try_into().map_err(wrong)?;
                    let (answer, transport) =
                        Handshake::responder(responder).step_1(hello).map_err(wrong)?;
                    reply.extend(self.encoder.encode_handshake(answer));
                    let (seal, unseal) = transport.split();
                    self.state = State::Open { seal, unseal };
                }
                State::Open { seal, unseal } => {
                    match self.decoder.next_transport_frame(unseal).map_err(wrong)? {
                        Decrypted::Incomplete(_, unseal) => {
                            self.state = State::Open { seal, unseal };
                        }
                        Decrypted::Frame(mut frame, unseal) => {
                            self.state = State::Open { seal, unseal };
                            let header = frame.header();
                            let message = AnyMessage::try_from((header, frame.payload()));
                            messages.push(message.map_err(wrong)?.into_owned());
                        }
                    }
                }
                State::Over => return Err(WireError("the connection is over".to_owned())),
            }
        }
    }

    /// Seals a message.
    ///
    /// # Errors
    /// Before the handshake, or when it does not fit a frame.
    pub fn seal(&mut self, message: AnyMessageOwned) -> Result<Vec<u8>, WireError> {
        let frame = MessageFrame::try_from(message).map_err(wrong)?;
        self.seal_frame(frame)
    }

    /// Seals anything that says how long it is and what it is; for frames that no message of the protocol makes.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_frame<F: stratum_core::codec_sv2::EncodableFrame>(
        &mut self,
        frame: F,
    ) -> Result<Vec<u8>, WireError> {
        let State::Open { seal, .. } = &mut self.state else {
            return Err(WireError("the handshake is not done".to_owned()));
        };
        self.encoder.encode_transport(frame, seal).map_err(wrong)
    }
}
