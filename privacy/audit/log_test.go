package audit

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// leaf is the i-th record of the logs in these tests.
func leaf(i uint64) []byte { return fmt.Appendf(nil, "record %d", i) }

// logs are the logs of 0, 1, … n records, each grown from the one before.
func logs(n uint64) []Log {
	out := []Log{{}}
	for i := range n {
		out = append(out, out[i].Append(leaf(i)))
	}
	return out
}

// naive is RFC 6962, section 2.1, as it stands there.
func naive(records [][]byte) tlog.Hash {
	switch n := len(records); n {
	case 0:
		return tlog.Hash(mustHex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")) // SHA-256 of nothing
	case 1:
		return tlog.RecordHash(records[0])
	default:
		k := 1
		for 2*k < n {
			k *= 2
		}
		return tlog.NodeHash(naive(records[:k]), naive(records[k:]))
	}
}

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestRootIsThatOfRFC6962(t *testing.T) {
	var records [][]byte
	for i, l := range logs(600) { // more than two chunks of records, more than four of hashes
		if got := tlog.Hash(l.Root()); got != naive(records) || l.Size() != uint64(i) {
			t.Fatalf("%d records: size %d, root %v, want %v", i, l.Size(), got, naive(records))
		}
		records = append(records, leaf(uint64(i)))
	}
	// The empty tree and the first test vectors of certificate transparency: the leaves "" and 00.
	l := Log{}.Append(nil)
	if got := tlog.Hash(l.Root()); got != tlog.Hash(mustHex("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d")) {
		t.Errorf("log of one empty record: %v", got)
	}
	l = l.Append([]byte{0})
	if got := tlog.Hash(l.Root()); got != tlog.Hash(mustHex("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125")) {
		t.Errorf("log of two records: %v", got)
	}
}

func TestNewLogIsTheAppendedLog(t *testing.T) {
	var records [][]byte
	for i, l := range logs(600) {
		built := NewLog(records)
		for k := range int64(l.hashes.len()) {
			if built.hashes.len() != l.hashes.len() || built.hashes.at(int(k)) != l.hashes.at(int(k)) {
				t.Fatalf("%d records: hash %d differs", i, k)
			}
		}
		one, two := built.Append([]byte("one")), built.Append([]byte("two"))
		if one.Root() != l.Append([]byte("one")).Root() || two.Root() != l.Append([]byte("two")).Root() || built.Root() != l.Root() {
			t.Fatalf("%d records: what grows from the built log differs", i)
		}
		records = append(records, leaf(uint64(i)))
	}
}

// Every record is proved in, and every older log a beginning of, every log of up to 200 records.
func TestProofs(t *testing.T) {
	all := logs(200)
	for size, l := range all {
		root := tlog.Hash(l.Root())
		for old := range all[:size] {
			n := int64(old)
			in, err := tlog.ProveRecord(int64(size), n, l)
			if err != nil {
				t.Fatalf("prove record %d of %d: %v", n, size, err)
			}
			if err := tlog.CheckRecord(in, int64(size), root, n, tlog.RecordHash(l.Record(uint64(n)))); err != nil {
				t.Errorf("record %d of %d: %v", n, size, err)
			}
			if tlog.CheckRecord(in, int64(size), root, n, tlog.RecordHash([]byte("another"))) == nil {
				t.Errorf("another record is proved to be the %d-th of %d", n, size)
			}
			if old == 0 {
				continue
			}
			since, err := tlog.ProveTree(int64(size), n, l)
			if err != nil {
				t.Fatalf("prove the first %d of %d: %v", n, size, err)
			}
			if err := tlog.CheckTree(since, int64(size), root, n, tlog.Hash(all[old].Root())); err != nil {
				t.Errorf("the first %d of %d: %v", n, size, err)
			}
			if tlog.CheckTree(since, int64(size), root, n, naive([][]byte{leaf(999)})) == nil {
				t.Errorf("another log is proved to be the first %d of %d", n, size)
			}
		}
	}
}

func TestRootAtIsTheOlderLogs(t *testing.T) {
	all := logs(300)
	last := all[300]
	for size, l := range all {
		if got, err := last.RootAt(uint64(size)); err != nil || got != l.Root() {
			t.Errorf("at %d: %x, want %x: %v", size, got, l.Root(), err)
		}
	}
	if _, err := last.RootAt(301); err == nil || !strings.Contains(err.Error(), "root of 301 records in a log of 300") {
		t.Errorf("beyond the end: %v", err)
	}
}

// Logs that grow from one log, in any order, do not disturb it or each other.
func TestAppendLeavesTheOlderLog(t *testing.T) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	type grown struct {
		log     Log
		records [][]byte
	}
	var known []grown
	for _, n := range []uint64{0, 1, chunkLen - 2, chunkLen - 1, chunkLen, 2*chunkLen - 1, 300} {
		l := logs(n)[n]
		var records [][]byte
		for i := range n {
			records = append(records, leaf(i))
		}
		known = append(known, grown{l, records})
	}
	for i := range 500 {
		from := known[rng.IntN(len(known))]
		record := fmt.Appendf(nil, "branch %d", i)
		known = append(known, grown{from.log.Append(record), append(from.records[:len(from.records):len(from.records)], record)})
	}
	for i, k := range known {
		if k.log.Size() != uint64(len(k.records)) || tlog.Hash(k.log.Root()) != naive(k.records) {
			t.Fatalf("seed %d: log %d of %d records was changed by another", seed, i, len(k.records))
		}
		for n, want := range k.records {
			if string(k.log.Record(uint64(n))) != string(want) {
				t.Fatalf("seed %d: record %d of log %d is %q, want %q", seed, n, i, k.log.Record(uint64(n)), want)
			}
		}
	}
}

func TestReadHashesRefusesWhatIsNotThere(t *testing.T) {
	l := logs(3)[3] // three leaves and the hash over the first two
	if _, err := l.ReadHashes([]int64{0, 3}); err != nil {
		t.Error(err)
	}
	for _, i := range []int64{-1, 4, 1 << 40} {
		if _, err := l.ReadHashes([]int64{i}); err == nil {
			t.Errorf("hash %d was read", i)
		}
	}
}

func TestLogReadsBack(t *testing.T) {
	for _, n := range []uint64{0, 1, 2, chunkLen - 1, chunkLen, chunkLen + 1, 300} {
		l := logs(n)[n]
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		got := Log{}.Append([]byte("what it held before"))
		if err := json.Unmarshal(b, &got); err != nil || got.Size() != n || got.Root() != l.Root() {
			t.Errorf("%d records read back as %d: %v", n, got.Size(), err)
		}
		again, err := json.Marshal(got)
		if err != nil || string(again) != string(b) {
			t.Errorf("%d records are written otherwise the second time: %v", n, err)
		}
	}
}

func TestDamagedLogIsNotRead(t *testing.T) {
	l := logs(3)[3]
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	first, second := `"cmVjb3JkIDA="`, `"cmVjb3JkIDE="` // "record 0", "record 1"
	for name, damaged := range map[string]string{
		"a record changed":  strings.Replace(good, first, `"cmVjb3JkIDk="`, 1),
		"a record dropped":  strings.Replace(good, first+",", "", 1),
		"a record repeated": strings.Replace(good, first, first+","+first, 1),
		"records swapped":   strings.NewReplacer(first, second, second, first).Replace(good),
		"no root":           good[:strings.Index(good, `,"Root"`)] + "}",
		"nothing":           "null",
		"an empty object":   "{}",
		"a number":          "7",
		"no base64":         strings.Replace(good, first, `"?"`, 1),
	} {
		var got Log
		if err := json.Unmarshal([]byte(damaged), &got); err == nil || damaged == good {
			t.Errorf("%s: read", name)
		} else if got.Size() != 0 {
			t.Errorf("%s: half read", name)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	record := make([]byte, 200)
	l := logs(1000)[1000]
	b.ReportAllocs()
	for b.Loop() {
		l = l.Append(record)
	}
}

func BenchmarkNewLog(b *testing.B) {
	records := make([][]byte, 10000)
	for i := range records {
		records[i] = make([]byte, 200)
	}
	for b.Loop() {
		NewLog(records)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(records)), "ns/record")
}
