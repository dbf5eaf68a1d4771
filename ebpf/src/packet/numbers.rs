//! Numbers that stand in headers.

/// TCP flag bits as they stand in the header.
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Aborts one.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
}

/// ICMP and ICMPv6 message types that are looked at.
pub mod icmp {
    /// IPv4 echo reply.
    pub const V4_ECHO_REPLY: u8 = 0;
    /// IPv4 destination unreachable.
    pub const V4_UNREACHABLE: u8 = 3;
    /// IPv4 source quench (deprecated, RFC 6633).
    pub const V4_SOURCE_QUENCH: u8 = 4;
    /// IPv4 redirect.
    pub const V4_REDIRECT: u8 = 5;
    /// IPv4 echo request.
    pub const V4_ECHO: u8 = 8;
    /// IPv4 router advertisement (RFC 1256).
    pub const V4_ROUTER_ADVERTISEMENT: u8 = 9;
    /// IPv4 time exceeded.
    pub const V4_TIME_EXCEEDED: u8 = 11;
    /// IPv4 parameter problem.
    pub const V4_PARAMETER: u8 = 12;
    /// IPv6 destination unreachable.
    pub const V6_UNREACHABLE: u8 = 1;
    /// IPv6 packet too big.
    pub const V6_TOO_BIG: u8 = 2;
    /// IPv6 time exceeded.
    pub const V6_TIME_EXCEEDED: u8 = 3;
    /// IPv6 echo request.
    pub const V6_ECHO: u8 = 128;
    /// IPv6 echo reply.
    pub const V6_ECHO_REPLY: u8 = 129;
    /// IPv6 multicast listener query; report and done follow.
    pub const V6_MLD_FIRST: u8 = 130;
    /// IPv6 multicast listener done.
    pub const V6_MLD_LAST: u8 = 132;
    /// Router solicitation.
    pub const V6_ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const V6_ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const V6_NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const V6_NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const V6_REDIRECT: u8 = 137;
    /// Multicast listener report, version 2 (RFC 3810).
    pub const V6_MLD2_REPORT: u8 = 143;
}
