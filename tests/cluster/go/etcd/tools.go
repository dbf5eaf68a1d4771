//go:build tools

// Package tools pins the store of the test cluster, for machines whose distribution has none.
package tools

import _ "go.etcd.io/etcd/server/v3"
