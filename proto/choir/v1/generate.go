// Package choirv1 is the wire: messages between nodes, operators and coordinators, and the commands coordinators
// agree on. The Go files are generated from choir.proto; docs/wire.md explains them.
package choirv1

//go:generate go -C ../../../tools run ./protogen ../proto choir/v1/choir.proto
