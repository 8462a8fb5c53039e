// The majority of three bits from differences: b ^ c is the a ^ b of the round before, so a device without logic of
// three operands computes one less.

fn majority(a: U, b: U, c: U) -> U { return b ^ ((a ^ b) & (b ^ c)); }
