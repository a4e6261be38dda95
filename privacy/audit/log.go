package audit

import (
	"encoding/json"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Log is an append-only list of records with the RFC 6962 tree over them. It is an immutable value: Append returns a
// longer log and leaves the old one as it was, also when two logs grow from one. Logs that share a beginning share its
// memory. The zero Log is empty.
type Log struct {
	records chunked[[]byte]
	hashes  chunked[tlog.Hash] // in tlog's storage order
}

// chunkLen is how many elements are copied, at most, when one is appended.
const chunkLen = 256

// chunked is a persistent vector: full chunks are shared, the last one is copied on append.
type chunked[T any] struct {
	full [][]T
	last []T
}

// chunkedOf cuts a slice, which must not change, into chunks.
func chunkedOf[T any](all []T) (c chunked[T]) {
	for chunk := range slices.Chunk(all, chunkLen) {
		if c.last = chunk; len(chunk) == chunkLen {
			c.full, c.last = append(c.full, chunk), nil
		}
	}
	return c
}

func (c chunked[T]) len() int { return len(c.full)*chunkLen + len(c.last) }

func (c chunked[T]) at(i int) T {
	if k := i / chunkLen; k < len(c.full) {
		return c.full[k][i%chunkLen]
	}
	return c.last[i%chunkLen]
}

func (c chunked[T]) append(x T) chunked[T] {
	last := make([]T, len(c.last)+1)
	copy(last, c.last)
	last[len(c.last)] = x
	if len(last) < chunkLen {
		return chunked[T]{c.full, last}
	}
	full := make([][]T, len(c.full)+1)
	copy(full, c.full)
	full[len(c.full)] = last
	return chunked[T]{full: full}
}

// NewLog returns the log of the records, which must not change: what appending one after another gives, but faster.
func NewLog(records [][]byte) Log {
	var hashes []tlog.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = hashes[x]
		}
		return out, nil
	})
	for i, r := range records {
		stored, err := tlog.StoredHashes(int64(i), r, read)
		if err != nil {
			panic(err) // all hashes are in memory
		}
		hashes = append(hashes, stored...)
	}
	return Log{chunkedOf(records), chunkedOf(hashes)}
}

// Append returns the log with one more leaf. It keeps record, which must not change.
func (l Log) Append(record []byte) Log {
	n := int64(l.records.len())
	stored, err := tlog.StoredHashes(n, record, l)
	if err != nil {
		panic(fmt.Sprintf("audit log of %d records: %v", n, err)) // all hashes are in memory
	}
	l.records = l.records.append(record)
	for _, h := range stored {
		l.hashes = l.hashes.append(h)
	}
	return l
}

// ReadHashes is for the tree's algorithms.
func (l Log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(l.hashes.len()) {
			return nil, fmt.Errorf("hash %d of %d", x, l.hashes.len())
		}
		out[i] = l.hashes.at(int(x))
	}
	return out, nil
}

// Size is the number of records.
func (l Log) Size() uint64 { return uint64(l.records.len()) }

// Record is the i-th record. The slice must not be changed.
func (l Log) Record(i uint64) []byte { return l.records.at(int(i)) }

// Root is the tree's root, of the whole log.
func (l Log) Root() [32]byte {
	root, err := l.RootAt(l.Size())
	if err != nil {
		panic(err) // the size is the log's own
	}
	return root
}

// RootAt is the root of the first size records.
func (l Log) RootAt(size uint64) ([32]byte, error) {
	if size > l.Size() {
		return [32]byte{}, fmt.Errorf("root of %d records in a log of %d", size, l.Size())
	}
	h, err := tlog.TreeHash(int64(size), l)
	return h, err
}

// snapshot is a log in a snapshot. The root is there to be compared.
type snapshot struct {
	Records [][]byte
	Root    []byte
}

// MarshalJSON writes the records and the root.
func (l Log) MarshalJSON() ([]byte, error) {
	root := l.Root()
	s := snapshot{Root: root[:]}
	for i := range l.Size() {
		s.Records = append(s.Records, l.Record(i))
	}
	return json.Marshal(s)
}

// UnmarshalJSON reads what MarshalJSON wrote, rebuilds the tree and compares the root.
func (l *Log) UnmarshalJSON(b []byte) error {
	var s snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("decode log: %w", err)
	}
	built := NewLog(s.Records)
	if root := built.Root(); string(root[:]) != string(s.Root) {
		return fmt.Errorf("decode log: %d records do not give the root they should", len(s.Records))
	}
	*l = built
	return nil
}
