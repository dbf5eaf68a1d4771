//go:build tools

// Package tools pins the DNS server of the test cluster.
package tools

import _ "github.com/coredns/coredns"
