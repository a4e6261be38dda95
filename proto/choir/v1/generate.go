// Package choirv1 is the wire: messages between nodes, operators and coordinators, and the commands coordinators
// agree on. The Go files are generated from choir.proto; docs/wire.md explains them.
package choirv1

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative --go-grpc_out=../.. --go-grpc_opt=paths=source_relative choir/v1/choir.proto
