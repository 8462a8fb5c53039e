// The majority of three bits as and and or: one instruction where a device has logic of three operands.

fn majority(a: U, b: U, c: U) -> U { return (a & b) | (c & (a | b)); }
