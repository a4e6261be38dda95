package audit

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"choir.example/privacy/seal"
)

// proof proves the last record of a log of a few, under a head of all of it.
func (f *federation) proof(record Record, signers ...string) Proof {
	f.t.Helper()
	records := append(encoded(f.story()), Encode(record))
	p, err := NewLog(records).Prove(uint64(len(records)-1), f.head(records, signers...))
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// A proof holds if the record is a leaf under a head that a majority of the roster's coordinators signed, and names
// what is wrong if not.
func TestProofIsOfWhatAMajoritySigned(t *testing.T) {
	f, other := found(t, 1, "a", "b", "c"), found(t, 2, "a", "b", "c")
	wanted := &JobEnded{"j", "stopped", ""} // story ends otherwise
	resigned := func(p *Proof, signers ...string) {
		p.Head.Signatures = nil
		for _, s := range signers {
			p.Head.Signatures = append(p.Head.Signatures, Signature{s, seal.Sign(f.keys[s], DomainHead, p.Head.Message())})
		}
	}
	for _, c := range []struct {
		name   string
		change func(p *Proof, r *Roster)
		want   string
	}{
		{"all signed", func(*Proof, *Roster) {}, ""},
		{"a majority", func(p *Proof, _ *Roster) { resigned(p, "a", "c") }, ""},
		{"a majority and a stranger", func(p *Proof, _ *Roster) {
			resigned(p, "a", "b")
			p.Head.Signatures = append(p.Head.Signatures, Signature{"x", []byte("x")})
		}, ""},
		{"one", func(p *Proof, _ *Roster) { resigned(p, "b") }, "1 of 3 coordinators signed, a majority is 2"},
		{"nobody", func(p *Proof, _ *Roster) { resigned(p) }, "0 of 3 coordinators signed"},
		{"nobody of nobody", func(p *Proof, r *Roster) { resigned(p); r.Coordinators = nil }, "0 of 0 coordinators signed, a majority is 1"},
		{"one twice", func(p *Proof, _ *Roster) { resigned(p, "b", "b") }, "signers are not in order, or one signed twice"},
		{"one for the others", func(p *Proof, _ *Roster) {
			resigned(p, "a")
			for _, name := range []string{"b", "c"} {
				p.Head.Signatures = append(p.Head.Signatures, Signature{name, p.Head.Signatures[0].Signature})
			}
		}, "signature of b: signature does not verify"},
		{"signed as a roster", func(p *Proof, _ *Roster) {
			for i, s := range p.Head.Signatures {
				p.Head.Signatures[i].Signature = seal.Sign(f.keys[s.Signer], DomainRoster, p.Head.Message())
			}
		}, "signature of a: signature does not verify"},
		{"a minority of a larger roster", func(_ *Proof, r *Roster) {
			r.Coordinators = found(t, 1, "a", "b", "c", "d", "e", "f").genesis.Coordinators
		}, "3 of 6 coordinators signed, a majority is 4"},
		{"keys of another federation", func(p *Proof, _ *Roster) { *p = other.proof(wanted, "a", "b", "c") }, "signature of a: signature does not verify"},
		{"certificates of another root", func(p *Proof, r *Roster) { *p, *r = other.proof(wanted, "a", "b", "c"), other.roster() }, "signature of a: certificate is not of this federation"},
		{"another federation's name", func(p *Proof, _ *Roster) { p.Head.Cluster = "stall" }, `head of federation "stall", not "shop"`},
		{"another record", func(p *Proof, _ *Roster) { p.Record = Encode(&JobEnded{"j", "failed", ""}) }, "is not in the log"},
		{"another place", func(p *Proof, _ *Roster) { p.Leaf-- }, "is not in the log"},
		{"beyond the head", func(p *Proof, _ *Roster) { p.Leaf = p.Head.Size }, "is not in the log"},
		{"beyond all numbers", func(p *Proof, _ *Roster) { p.Leaf = math.MaxUint64 }, "is not in the log"},
		{"a head beyond all numbers", func(p *Proof, _ *Roster) { p.Head.Size = math.MaxUint64; resigned(p, "a", "b") }, "is not in the log"},
		{"no path", func(p *Proof, _ *Roster) { p.Path = nil }, "is not in the log"},
		{"a longer path", func(p *Proof, _ *Roster) { p.Path = append(p.Path, dig(1)) }, "is not in the log"},
		{"another root hash", func(p *Proof, _ *Roster) { p.Head.Root[0] ^= 1 }, "0 of 3 coordinators signed"},
	} {
		p, r := f.proof(wanted, "a", "b", "c"), f.roster()
		c.change(&p, &r)
		got, err := p.Verify(r, f.root.Certificate(), noon)
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		case err == nil && *got.(*JobEnded) != *wanted:
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if _, err := f.proof(wanted, "a", "b", "c").Verify(f.roster(), f.root.Certificate(), noon.Add(2*month)); err == nil {
		t.Error("signed with certificates that have expired: no error")
	}
}

// Every record is proved under the head of every log it is in, by a longer log, too.
func TestEveryRecordIsProved(t *testing.T) {
	f := found(t, 1, "a")
	records := encoded(f.story())
	whole := NewLog(records)
	for size := 1; size <= len(records); size++ {
		h := f.head(records[:size], "a")
		for leaf := range uint64(size) {
			p, err := whole.Prove(leaf, h)
			if err != nil {
				t.Fatal(err)
			}
			read, err := DecodeProof(p.Encode())
			if err != nil {
				t.Fatal(err)
			}
			if got, err := read.Verify(f.roster(), f.root.Certificate(), noon); err != nil || !bytes.Equal(Encode(got), records[leaf]) {
				t.Errorf("record %d of %d: %v", leaf, size, err)
			}
		}
		for _, leaf := range []uint64{uint64(size), math.MaxUint64} {
			if _, err := whole.Prove(leaf, h); err == nil {
				t.Errorf("record %d of %d is proved", leaf, size)
			}
		}
	}
	if _, err := NewLog(records[:2]).Prove(0, f.head(records[:3])); err == nil {
		t.Error("proved under a head of more records than there are")
	}
}
