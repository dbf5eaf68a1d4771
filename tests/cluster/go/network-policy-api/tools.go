//go:build tools

// Package tools pins the conformance tests of ClusterNetworkPolicy.
package tools

import _ "sigs.k8s.io/network-policy-api/conformance"
