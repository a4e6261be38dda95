// Package live holds tests only: they build the choir binary, start it as real processes from the files in deploy/local,
// kill and break them as the world does, and look at what they print. They know the program as a stranger does, by its
// commands, files and documents; of the packages they use the reader of audit bundles alone.
//
//	go test ./live                                       what runs each time
//	go test ./live -run TestLeaderKilled -kills 20 -v    one of the longer proofs; results in docs/results.md
package live
