//! The encrypted transport of Stratum V2 as a state: bytes in, messages out, and back.
//!
//! ```text
//! hello (64 bytes) -> reply (234 bytes) checked against the authority key -> frames, each with its own seal
//! ```
//! The crates below panic on nothing a peer can send, but they also identity a frame's declared length up to 16 MiB. The
//! longest message a pool has for a miner is a job of two coinbase halves and a merkle path, so a frame that grows
//! beyond [`FRAME_BYTES_MAX`] ends the connection. A seal that does not fit ends it too: the cipher's counter is lost
//! and nothing that follows could be read.

use stratum_core::codec_sv2::{
    Decoded, Decrypted, Error as CodecError, Handshake, InitiatorSent, MessageFrame, NoiseDecoder,
    NoiseEncoder, TransportDecryptState, TransportEncryptState,
};
use stratum_core::noise_sv2::{Error as SealError, Initiator};
use stratum_core::parsers_sv2::{AnyMessage, AnyMessageOwned, ParserError};

use crate::config::Identity;

/// Sealed bytes of one frame: a job has two coinbase halves of 64 KiB, 255 branches and little else.
pub const FRAME_BYTES_MAX: usize = 160 * 1024;

/// Why the connection can no longer be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    #[error("it is not the pool it should be: its certificate is not signed by the authority key")]
    WrongAuthority,
    #[error("its authority key is no point of secp256k1: look for another one with the pool")]
    NoKey,
    #[error("its certificate is valid from {from} to {until}, and this machine's clock says {now}")]
    OutOfDate { from: u32, until: u32, now: u32 },
    #[error("its answer to the handshake is no Stratum V2: {0}")]
    Handshake(String),
    #[error("it sent a frame that its key does not open")]
    Unreadable,
    #[error("it sent a frame longer than {FRAME_BYTES_MAX} bytes")]
    Oversize,
    #[error("a message could not be sealed: {0}")]
    Seal(String),
}

/// What a frame held.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// The handshake is done; messages may be sent.
    Open,
    /// A message of the protocol.
    Message(Box<AnyMessageOwned>),
    /// A message of a kind or extension that is not known here.
    Unknown { kind: u8 },
    /// A message of a known kind that could not be read.
    Malformed { kind: u8, why: String },
}

enum State {
    Shaking(Handshake<InitiatorSent>),
    Open { seal: TransportEncryptState, unseal: TransportDecryptState },
    Over,
}

/// One connection's transport.
pub struct Noise {
    state: State,
    identity: Identity,
    decoder: NoiseDecoder,
    encoder: NoiseEncoder,
    /// Received and not yet taken by the decoder, which takes whole pieces only; below one piece and one read.
    pending: Vec<u8>,
    /// Bytes of the frame being received.
    frame: usize,
}

impl Noise {
    /// Begins a connection: the state, and what to send first.
    ///
    /// # Errors
    /// When the key is no point of the curve.
    pub fn hello(identity: Identity) -> Result<(Self, Vec<u8>), NoiseError> {
        let initiator = match identity {
            Identity::Authority(key) => Initiator::from_raw_k(key.bytes()),
            Identity::Anyone => Initiator::without_pk(),
        };
        Self::begin(identity, initiator.map_err(|_| NoiseError::NoKey)?)
    }

    fn begin(identity: Identity, initiator: Box<Initiator>) -> Result<(Self, Vec<u8>), NoiseError> {
        let broken = |error: &dyn std::fmt::Debug| NoiseError::Handshake(format!("{error:?}"));
        let (first, sent) =
            Handshake::initiator(initiator).step_0().map_err(|error| broken(&error))?;
        let mut encoder = NoiseEncoder::new();
        let hello = encoder.encode_handshake(first);
        let mut decoder = NoiseDecoder::new();
        // Tells the decoder how much the first answer is; there is nothing to read yet.
        decoder.next_handshake_frame::<InitiatorSent>().map_err(|error| broken(&error))?;
        let noise = Self {
            state: State::Shaking(sent),
            identity,
            decoder,
            encoder,
            pending: Vec::new(),
            frame: 0,
        };
        Ok((noise, hello))
    }

    /// Whether the handshake is done.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Bytes arrived; ask [`Self::next`] what they hold.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Over) {
            self.pending.extend_from_slice(bytes);
        }
    }

    /// The next message of what was fed, `None` when more bytes are needed. `unix` is the time of day in seconds since
    /// 1970, for the certificate.
    ///
    /// # Errors
    /// The connection is over; later calls give `None`.
    pub fn next(&mut self, unix: u32) -> Result<Option<Incoming>, NoiseError> {
        let outcome = self.advance(unix);
        if outcome.is_err() {
            self.state = State::Over;
            self.pending = Vec::new();
        }
        outcome
    }

    fn advance(&mut self, unix: u32) -> Result<Option<Incoming>, NoiseError> {
        while self.take_piece()? {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Shaking(sent) => {
                    let decoded = self.decoder.next_handshake_frame::<InitiatorSent>();
                    let Ok(Decoded::Frame(reply)) = decoded else {
                        self.state = State::Shaking(sent);
                        continue;
                    };
                    self.frame = 0;
                    let reply = reply
                        .payload()
                        .try_into()
                        .map_err(|_| NoiseError::Handshake("its length".into()))?;
                    let transport = sent
                        .step_2_with_now(reply, unix)
                        .map_err(|error| self.refused(error, unix))?;
                    let (seal, unseal) = transport.split();
                    self.state = State::Open { seal, unseal };
                    return Ok(Some(Incoming::Open));
                }
                State::Open { seal, unseal } => match self.decoder.next_transport_frame(unseal) {
                    Ok(Decrypted::Incomplete(_, unseal)) => {
                        self.state = State::Open { seal, unseal };
                    }
                    Ok(Decrypted::Frame(mut frame, unseal)) => {
                        self.state = State::Open { seal, unseal };
                        self.frame = 0;
                        return Ok(Some(read(frame.header(), frame.payload())));
                    }
                    Err(_) => return Err(NoiseError::Unreadable),
                },
                State::Over => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Hands the decoder the piece it waits for; false when that has not arrived whole.
    fn take_piece(&mut self) -> Result<bool, NoiseError> {
        let wanted = self.decoder.writable_len();
        if self.pending.len() < wanted || matches!(self.state, State::Over) {
            return Ok(false);
        }
        self.frame += wanted;
        if self.frame > FRAME_BYTES_MAX {
            return Err(NoiseError::Oversize);
        }
        let rest = self.pending.split_off(wanted);
        self.decoder.writable().copy_from_slice(&self.pending);
        self.pending = rest;
        Ok(true)
    }

    fn refused(&self, error: CodecError, now: u32) -> NoiseError {
        match (error, self.identity) {
            (CodecError::NoiseSv2Error(SealError::InvalidCertificate(paper)), identity) => {
                let (from, until) = (paper.valid_from, paper.not_valid_after);
                match identity {
                    _ if now < from || now > until => NoiseError::OutOfDate { from, until, now },
                    Identity::Authority(_) => NoiseError::WrongAuthority,
                    Identity::Anyone => NoiseError::Handshake("its certificate's version".into()),
                }
            }
            (other, _) => NoiseError::Handshake(other.to_string()),
        }
    }

    /// Seals a message for sending.
    ///
    /// # Errors
    /// Before the handshake is done, and for a message that does not fit a frame.
    pub fn seal(&mut self, message: AnyMessageOwned) -> Result<Vec<u8>, NoiseError> {
        let State::Open { seal, .. } = &mut self.state else {
            return Err(NoiseError::Seal("the handshake is not done".into()));
        };
        let frame = MessageFrame::try_from(message)
            .map_err(|error: ParserError| NoiseError::Seal(error.to_string()))?;
        self.encoder
            .encode_transport(frame, seal)
            .map_err(|error| NoiseError::Seal(error.to_string()))
    }
}

fn read(header: stratum_core::framing_sv2::header::Header, payload: &mut [u8]) -> Incoming {
    let kind = header.msg_type();
    match AnyMessage::try_from((header, payload)) {
        Ok(message) => Incoming::Message(Box::new(message.into_owned())),
        Err(ParserError::UnexpectedMessage(_) | ParserError::ExtensionError(_)) => {
            Incoming::Unknown { kind }
        }
        Err(error) => Incoming::Malformed { kind, why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use rand_core::{CryptoRng, Error, RngCore};
    use roadbed_compute::hash::hex;
    use stratum_core::parsers_sv2::MiningOwned;

    use super::*;
    use crate::config::ChannelKind;
    use crate::miner::stratum2::setup;

    /// Gives the same byte for ever: secrets of a transcript are fixed.
    struct Same(u8);

    impl RngCore for Same {
        fn next_u32(&mut self) -> u32 {
            u32::from_ne_bytes([self.0; 4])
        }

        fn next_u64(&mut self) -> u64 {
            u64::from_ne_bytes([self.0; 8])
        }

        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
            self.fill_bytes(bytes);
            Ok(())
        }
    }

    impl CryptoRng for Same {}

    fn data(file: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/stratum2/");
        std::fs::read(format!("{folder}{file}")).unwrap()
    }

    /// Handshake, keys, nonces and pieces of frames as a second implementation has them, which shares no code with ours.
    #[test]
    fn a_second_implementation_makes_the_same_connection() {
        let script: serde_json::Value =
            serde_json::from_slice(&data("noise_transcript.json")).unwrap();
        let bytes = |value: &serde_json::Value| {
            hex::decode("transcript", value.as_str().unwrap(), 1 << 20).unwrap()
        };
        let unix = u32::try_from(script["unix_seconds"].as_u64().unwrap()).unwrap();
        let key = script["authority_key"].as_str().unwrap().parse().unwrap();
        let identity = Identity::Authority(key);
        let greet = || {
            let secret = bytes(&script["client_secret"])[0];
            let initiator = Initiator::from_raw_k_with_rng(key.bytes(), &mut Same(secret)).unwrap();
            Noise::begin(identity, initiator).unwrap()
        };

        let (mut noise, hello) = greet();
        assert_eq!(hex::encode(&hello), script["hello"].as_str().unwrap());
        noise.feed(&bytes(&script["reply"]));
        assert!(matches!(noise.next(unix), Ok(Some(Incoming::Open))));

        let open = setup::open(ChannelKind::Extended, 1, "farm.rig", 5e6).unwrap();
        for (message, frame) in [open, setup::update(7, 12_345_678.0)].into_iter().enumerate() {
            let sealed = noise.seal(frame).unwrap();
            let want = script["client_frames"][message].as_str().unwrap();
            assert_eq!(hex::encode(&sealed), want, "frame {message}");
        }

        noise.feed(&bytes(&script["server_block"]));
        let Ok(Some(Incoming::Message(message))) = noise.next(unix) else { panic!("no block") };
        let AnyMessageOwned::Mining(MiningOwned::SetNewPrevHash(block)) = *message else {
            panic!("{message}")
        };
        let previous: Vec<u8> = (0..32).collect();
        assert_eq!((block.channel_id, block.job_id, block.nbits), (7, 1, 0x1D00_FFFF));
        assert_eq!(block.prev_hash.to_array().to_vec(), previous);

        noise.feed(&data("long_job.bin"));
        let Ok(Some(Incoming::Message(message))) = noise.next(unix) else { panic!("no job") };
        let AnyMessageOwned::Mining(MiningOwned::NewExtendedMiningJob(job)) = *message else {
            panic!("{message}")
        };
        let head: Vec<u8> = (0..65_535_u32).map(|index| (index % 251) as u8).collect();
        assert_eq!((job.channel_id, job.job_id, job.is_future()), (7, 2, true));
        assert_eq!(job.coinbase_tx_prefix.as_bytes(), head);
        assert_eq!(job.coinbase_tx_suffix.as_bytes(), b"end");

        // The same certificate later, or signed by nobody, or one bit of the reply another.
        let (mut noise, _) = greet();
        noise.feed(&bytes(&script["reply"]));
        assert!(matches!(noise.next(unix + 7_200), Err(NoiseError::OutOfDate { .. })));
        for at in [0, 70, 150] {
            let (mut noise, _) = greet();
            let mut reply = bytes(&script["reply"]);
            reply[at] ^= 1;
            noise.feed(&reply);
            assert!(noise.next(unix).is_err(), "byte {at}");
        }
    }
}
