//! SHA-256d of several nonces at once, one a lane: the same text for one word and for vectors.
//!
//! ```text
//! lanes:  n, n+1, .. n+LANES-1  ->  two hashes, all rounds unrolled  ->  last word & mask == 0 ?
//! ```
//! Every round and message word is written out, so the compiler keeps all of them in registers and folds
//! constants, zero words and padding away. Of the second hash only word H is computed, as E after round 60.
//! The text is a macro and no generic function, because instructions are inlined early only into functions
//! that are compiled for them; as a generic function it takes the compiler many times as long.

/// Defines `scan` in a module that has a vector type `V` of `LANES` words and the functions `splat`, `iota`,
/// `add`, `rotate`, `shift`, `xor3`, `choose`, `majority` and `clear_of`; every function gets the attributes.
macro_rules! lanes {
    ($(#[$attribute:meta])*) => {
        use $crate::hash::prepared::Prepared;
        use $crate::hash::sha256::{DIGEST_BITS, HEADER_BITS, INITIAL, PAD, ROUND};

        /// Calls `candidate` with each of `count` nonces from `start` (modulo 2^32) whose last state word shares
        /// no bit with `mask`.
        $(#[$attribute])*
        pub fn scan(
            prepared: &Prepared,
            mask: u32,
            start: u32,
            count: u32,
            candidate: &mut dyn FnMut(u32),
        ) {
            let (iota, wide_mask) = (iota(), splat(mask));
            let mut offset = 0;
            while offset < count {
                let first = start.wrapping_add(offset);
                let words = swap_bytes(add(splat(first), iota));
                let mut found = clear_of(last_word(prepared, words), wide_mask);
                while found != 0 {
                    let lane = found.trailing_zeros();
                    found &= found - 1;
                    // The last vector may reach past the range.
                    if lane < count - offset {
                        candidate(first.wrapping_add(lane));
                    }
                }
                match offset.checked_add(LANES) {
                    Some(next) => offset = next,
                    None => return,
                }
            }
        }

        /// The last state word of the double hash for nonce words `n`.
        #[inline]
        $(#[$attribute])*
        fn last_word(p: &Prepared, n: V) -> V {
            let (s, w) = first_hash_to_36(p, n);
            let (s, w) = advance::<36>(s, w);
            let (s, w) = advance::<40>(s, w);
            let (s, w) = advance::<44>(s, w);
            let (s, w) = advance::<48>(s, w);
            let (s, w) = advance::<52>(s, w);
            let (s, w) = advance::<56>(s, w);
            let (s, _) = advance::<60>(s, w);

            let (s, w) = second_hash_to_16(p, s);
            let (s, w) = advance::<16>(s, w);
            let (s, w) = advance::<20>(s, w);
            let (s, w) = advance::<24>(s, w);
            let (s, w) = advance::<28>(s, w);
            let (s, w) = advance::<32>(s, w);
            let (s, w) = advance::<36>(s, w);
            let (s, w) = advance::<40>(s, w);
            let (s, w) = advance::<44>(s, w);
            let (s, w) = advance::<48>(s, w);
            let (s, w) = advance::<52>(s, w);
            let ([_, _, _, d, e, f, g, h], w) = advance::<56>(s, w);
            let w60 = add(next(w[0], w[1], w[9], w[14]), splat(ROUND[60]));
            let t = add(add(h, w60), add(choose(e, f, g), big_e(e)));
            add(add(d, t), splat(INITIAL[7]))
        }

        /// The header's second block after round 35, with message words 20 to 35.
        #[inline]
        $(#[$attribute])*
        fn first_hash_to_36(p: &Prepared, n: V) -> ([V; 8], [V; 16]) {
            let [a, b, c, _, e, f, g, _] = p.third;
            let [top, fifth] = p.fourth;
            let s = [add(splat(top), n), splat(a), splat(b), splat(c)];
            let s = [s[0], s[1], s[2], s[3], add(splat(fifth), n), splat(e), splat(f), splat(g)];
            let s = constant_rounds(s, HEADER_BITS);
            let (w16, w17) = (splat(p.w16), splat(p.w17));
            let w18 = add(splat(p.w18), small0(n));
            let w19 = add(splat(p.w19), n);
            let s = four::<16>(s, [w16, w17, w18, w19]);
            let w20 = add(small1(w18), splat(PAD));
            let w21 = small1(w19);
            let w22 = add(small1(w20), splat(HEADER_BITS));
            let w23 = add(small1(w21), w16);
            let s = four::<20>(s, [w20, w21, w22, w23]);
            let w24 = add(small1(w22), w17);
            let w25 = add(small1(w23), w18);
            let w26 = add(small1(w24), w19);
            let w27 = add(small1(w25), w20);
            let s = four::<24>(s, [w24, w25, w26, w27]);
            let w28 = add(small1(w26), w21);
            let w29 = add(small1(w27), w22);
            let w30 = add(small1(w28), add(w23, small0(splat(HEADER_BITS))));
            let w31 = add(small1(w29), add(w24, splat(p.w31)));
            let s = four::<28>(s, [w28, w29, w30, w31]);
            let w32 = add(small1(w30), add(w25, splat(p.w32)));
            let w33 = next(w17, w18, w26, w31);
            let w34 = next(w18, w19, w27, w32);
            let w35 = next(w19, w20, w28, w33);
            let s = four::<32>(s, [w32, w33, w34, w35]);
            (s, [w20, w21, w22, w23, w24, w25, w26, w27, w28, w29, w30, w31, w32, w33, w34, w35])
        }

        /// From the header's second block after its last round: the hash of the hash after round 15, and its
        /// message.
        #[inline]
        $(#[$attribute])*
        fn second_hash_to_16(p: &Prepared, s: [V; 8]) -> ([V; 8], [V; 16]) {
            let m = p.middle;
            let (w0, w1) = (add(s[0], splat(m[0])), add(s[1], splat(m[1])));
            let (w2, w3) = (add(s[2], splat(m[2])), add(s[3], splat(m[3])));
            let (w4, w5) = (add(s[4], splat(m[4])), add(s[5], splat(m[5])));
            let (w6, w7) = (add(s[6], splat(m[6])), add(s[7], splat(m[7])));
            let [a, b, c, d, e, f, g, h] = INITIAL;
            let s = [splat(a), splat(b), splat(c), splat(d), splat(e), splat(f), splat(g), splat(h)];
            let s = four::<4>(four::<0>(s, [w0, w1, w2, w3]), [w4, w5, w6, w7]);
            let (zero, pad, bits) = (splat(0), splat(PAD), splat(DIGEST_BITS));
            let s = four::<8>(s, [pad, zero, zero, zero]);
            let s = four::<12>(s, [zero, zero, zero, bits]);
            (s, [w0, w1, w2, w3, w4, w5, w6, w7, pad, zero, zero, zero, zero, zero, zero, bits])
        }

        /// Rounds 4 to 15 of a block that ends after its nonce.
        #[inline]
        $(#[$attribute])*
        fn constant_rounds(s: [V; 8], bits: u32) -> [V; 8] {
            let zero = splat(0);
            let s = four::<4>(s, [splat(PAD), zero, zero, zero]);
            let s = four::<8>(s, [zero; 4]);
            four::<12>(s, [zero, zero, zero, splat(bits)])
        }

        /// Rounds `T..T+4` with message words made from the sixteen before; gives the sixteen from `T - 12`.
        #[inline]
        $(#[$attribute])*
        fn advance<const T: usize>(s: [V; 8], w: [V; 16]) -> ([V; 8], [V; 16]) {
            let x0 = next(w[0], w[1], w[9], w[14]);
            let x1 = next(w[1], w[2], w[10], w[15]);
            let x2 = next(w[2], w[3], w[11], x0);
            let x3 = next(w[3], w[4], w[12], x1);
            let s = four::<T>(s, [x0, x1, x2, x3]);
            let [_, _, _, _, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15] = w;
            (s, [w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15, x0, x1, x2, x3])
        }

        /// Rounds `T..T+4`.
        #[inline]
        $(#[$attribute])*
        fn four<const T: usize>([a, b, c, d, e, f, g, h]: [V; 8], w: [V; 4]) -> [V; 8] {
            let (d, h) = round([a, b, c, d, e, f, g, h], add(w[0], splat(ROUND[T])));
            let (c, g) = round([h, a, b, c, d, e, f, g], add(w[1], splat(ROUND[T + 1])));
            let (b, f) = round([g, h, a, b, c, d, e, f], add(w[2], splat(ROUND[T + 2])));
            let (a, e) = round([f, g, h, a, b, c, d, e], add(w[3], splat(ROUND[T + 3])));
            [e, f, g, h, a, b, c, d]
        }

        /// The two words a round changes, the new E (from D) and the new A (from H); `wk` is message word plus
        /// round constant.
        #[inline]
        $(#[$attribute])*
        fn round([a, b, c, d, e, f, g, h]: [V; 8], wk: V) -> (V, V) {
            let t = add(add(h, wk), add(choose(e, f, g), big_e(e)));
            let big_a = xor3(rotate::<2, 30>(a), rotate::<13, 19>(a), rotate::<22, 10>(a));
            (add(d, t), add(t, add(big_a, majority(a, b, c))))
        }

        #[inline]
        $(#[$attribute])*
        fn big_e(e: V) -> V {
            xor3(rotate::<6, 26>(e), rotate::<11, 21>(e), rotate::<25, 7>(e))
        }

        /// Message word `t + 16` from the words `t`, `t + 1`, `t + 9` and `t + 14`.
        #[inline]
        $(#[$attribute])*
        fn next(w0: V, w1: V, w9: V, w14: V) -> V {
            add(add(small1(w14), w9), add(small0(w1), w0))
        }

        #[inline]
        $(#[$attribute])*
        fn small0(x: V) -> V {
            xor3(rotate::<7, 25>(x), rotate::<18, 14>(x), shift::<3>(x))
        }

        #[inline]
        $(#[$attribute])*
        fn small1(x: V) -> V {
            xor3(rotate::<17, 15>(x), rotate::<19, 13>(x), shift::<10>(x))
        }

        #[inline]
        $(#[$attribute])*
        fn swap_bytes(x: V) -> V {
            choose(splat(0xFF00_FF00), rotate::<8, 24>(x), rotate::<24, 8>(x))
        }
    };
}

pub(super) use lanes;

/// One lane: code for every CPU.
pub mod one {
    type V = u32;
    const LANES: u32 = 1;

    super::lanes!();

    #[inline]
    fn splat(word: u32) -> V {
        word
    }

    #[inline]
    fn iota() -> V {
        0
    }

    #[inline]
    fn add(a: V, b: V) -> V {
        a.wrapping_add(b)
    }

    /// To the right by `R`; `L` is 32 less `R`, for instruction sets without a rotation.
    #[inline]
    fn rotate<const R: u32, const L: u32>(x: V) -> V {
        x.rotate_right(R)
    }

    #[inline]
    fn shift<const R: u32>(x: V) -> V {
        x >> R
    }

    #[inline]
    fn xor3(a: V, b: V, c: V) -> V {
        a ^ b ^ c
    }

    /// Bit by bit `e ? f : g`.
    #[inline]
    fn choose(e: V, f: V, g: V) -> V {
        g ^ (e & (f ^ g))
    }

    #[inline]
    fn majority(a: V, b: V, c: V) -> V {
        (a & b) | (c & (a | b))
    }

    /// Bit i is set if lane i of `x` shares no bit with `mask`.
    #[inline]
    fn clear_of(x: V, mask: V) -> u32 {
        u32::from(x & mask == 0)
    }
}
