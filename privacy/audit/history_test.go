package audit

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"

	"choir.example/privacy/seal"
)

func TestLawfulHistoryVerifies(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	r := f.verify(f.bundle(f.story()))
	if !r.OK || r.Self || r.Cluster != "shop" || r.Records != len(f.story()) || r.Rounds != 3 {
		t.Errorf("%+v", r)
	}
	// Every beginning of a lawful history is lawful.
	records := encoded(f.story())
	for n := 1; n <= len(records); n++ {
		if _, err := replay(records[:n]); err != nil {
			t.Errorf("the first %d records: %v", n, err)
		}
	}
}

func TestHistoriesThatAreLawfulToo(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	for name, change := range map[string]func(s *tale){
		"abandoned after the cut": func(s *tale) { s.insertBefore(nth[*RoundAbandoned](s, 0), &RoundCut{"j", 1, 1, 2, 3}) },
		"abandoned after the charge": func(s *tale) {
			s.insertBefore(nth[*RoundAbandoned](s, 0), &RoundCut{"j", 1, 1, 2, 3}, &Charged{"j", 1, 1, "none", 2})
		},
		"incident after the job's end": func(s *tale) { s.add(&Incident{"j", 2, 1, "o", ReasonReplay, nil, nil}) },
		"incident of an abandoned try": func(s *tale) {
			s.insertAfter(nth[*RoundAbandoned](s, 0), &Incident{"j", 1, 1, "m", ReasonEquivocation, digest(1), digest(2)})
		},
		"the same node refused anew": func(s *tale) { s.add(&Incident{"j", 2, 1, "n", ReasonShape, nil, nil}) },
		"two updates after a refusal": func(s *tale) {
			s.insertAfter(nth[*Incident](s, 1), &Incident{"j", 1, 2, "n", ReasonEquivocation, digest(1), digest(2)})
		},
		"an epoch after another":        func(s *tale) { s.add(f.epoch("b", 7)) },
		"another job with the same key": func(s *tale) { s.add(&JobSubmitted{"k", dig(9)}, &JobEnded{"k", "failed", "no budget"}) },
		"a key with two tokens that both come back": func(s *tale) {
			key := nth[*Enrolled](s, 2).Key
			s.insertBefore(nth[*Incident](s, 0), &TokenCreated{"u", "node", 1}, &Enrolled{"p", key, "u"}, &Incident{Reason: ReasonTokenReuse, First: key, Second: digest(8)})
		},
		"a release without an evaluation round": func(s *tale) {
			for _, r := range []Record{nth[*RoundOpened](s, 3), nth[*BatchAccepted](s, 5), nth[*RoundCut](s, 2), nth[*Charged](s, 2), nth[*RoundClosed](s, 2)} {
				s.drop(r)
			}
		},
		"a lesser goal than the cohort": func(s *tale) { nth[*RoundOpened](s, 0).Goal = 2 },
	} {
		s := &tale{f.story()}
		change(s)
		if r := f.verify(f.bundle(s.records)); !r.OK {
			_, details := failed(r)
			t.Errorf("%s: %s", name, details)
		}
	}
}

// tale is a story to be spoiled.
type tale struct{ records []Record }

func (s *tale) add(more ...Record) { s.records = append(s.records, more...) }
func (s *tale) index(r Record) int { return slices.Index(s.records, r) }
func (s *tale) drop(r Record)      { i := s.index(r); s.records = slices.Delete(s.records, i, i+1) }
func (s *tale) insertBefore(r Record, more ...Record) {
	s.records = slices.Insert(s.records, s.index(r), more...)
}
func (s *tale) insertAfter(r Record, more ...Record) {
	s.records = slices.Insert(s.records, s.index(r)+1, more...)
}

// nth is the n-th record of a type, from 0.
func nth[T Record](s *tale, n int) T {
	for _, r := range s.records {
		if x, ok := r.(T); ok {
			if n == 0 {
				return x
			}
			n--
		}
	}
	panic("the story has no such record")
}

// copyOf is a new record that equals r.
func copyOf[T Record](r T) T {
	c, err := Decode(Encode(r))
	if err != nil {
		panic(err)
	}
	return c.(T)
}

func digest(b byte) []byte { d := dig(b); return d[:] }

// A majority of the coordinators may sign whatever it likes: a history that the rules do not allow is still found, by
// name, and by nothing but the check of the history.
func TestUnlawfulHistoryIsFound(t *testing.T) {
	f, other := found(t, 1, "a", "b", "c"), found(t, 2, "a", "b", "c")
	type R = *RoundOpened
	const thief = "incident of node thief: no used token explains that one came back with another key"
	equivocation := func(first, second []byte) func(s *tale) {
		return func(s *tale) {
			x := nth[*Incident](s, 1)
			x.Reason, x.First, x.Second = ReasonEquivocation, first, second
		}
	}
	for _, c := range []struct {
		name   string
		change func(s *tale)
		want   string
	}{
		// Who belongs to the federation.
		{"a second genesis", func(s *tale) { s.add(f.genesis) }, "genesis is out of place"},
		{"epoch key of a stranger", func(s *tale) { nth[*EpochAnnounced](s, 0).Coordinator = "x" }, "epoch key of x, which is no coordinator"},
		{"epoch announced again", func(s *tale) { s.add(f.epoch("b", 1)) }, "epoch 1 of b does not follow 1"},
		{"epoch 0", func(s *tale) { s.insertAfter(nth[*Genesis](s, 0), f.epoch("b", 0)) }, "epoch 0 of b does not follow 0"},
		{"epoch key that its coordinator did not sign", func(s *tale) { s.add(other.epoch("a", 2)) }, "epoch 2 of a: signature does not verify"},
		{"token created twice", func(s *tale) { s.add(copyOf(nth[*TokenCreated](s, 0))) }, "token t-m was created twice"},
		{"token for a coordinator", func(s *tale) { nth[*TokenCreated](s, 0).Role = "coordinator" }, "node m enrolled with token t-m, which is for a coordinator"},
		{"node without a token", func(s *tale) { nth[*Enrolled](s, 0).Token = "t" }, "node m enrolled with token t, which was never created"},
		{"token used twice", func(s *tale) { nth[*Enrolled](s, 1).Token = "t-m" }, "node n enrolled with token t-m, which was used before"},
		{"node enrolled twice", func(s *tale) { nth[*Enrolled](s, 1).Node = "m" }, "node m enrolled twice"},
		{"node with half a key", func(s *tale) { e := nth[*Enrolled](s, 0); e.Key = e.Key[:16] }, "node m enrolled with token t-m and a key of 16 bytes"},

		// What a round is to be.
		{"job submitted twice", func(s *tale) { s.add(&JobSubmitted{"j", dig(7)}) }, "job j was submitted twice"},
		{"round of no job", func(s *tale) { nth[R](s, 0).Job = "k" }, `round opened: job "k" does not run`},
		{"round after the job's end", func(s *tale) { s.add(f.round(3, 1, roundTraining, "m n")...) }, `round opened: job "j" does not run`},
		{"batch after the job's end", func(s *tale) { s.add(f.round(2, 1, roundEvaluation, "m n")[1]) }, `batch accepted: job "j" does not run`},
		{"round opened while one is open", func(s *tale) { s.drop(nth[*RoundAbandoned](s, 0)) }, "round opened: round 1 of job j is still open"},
		{"round left out", func(s *tale) { nth[R](s, 1).Round = 2 }, "round 2 attempt 1 of job j opened, its next is round 1 attempt 1"},
		{"round opened again after its close", func(s *tale) { r := nth[R](s, 3); r.Round, r.Attempt = 1, 3 }, "round 1 attempt 3 of job j opened, its next is round 2 attempt 1"},
		{"attempt left out", func(s *tale) { nth[R](s, 2).Attempt = 3 }, "round 1 attempt 3 of job j opened, its next is round 1 attempt 2"},
		{"attempt 0", func(s *tale) { nth[R](s, 0).Attempt = 0 }, "round 0 attempt 0 of job j opened, its next is round 0 attempt 1"},
		{"training first", func(s *tale) { nth[R](s, 0).RoundKind = roundTraining }, "round 0 of job j: a round of kind 2 has no place here"},
		{"statistics again", func(s *tale) { nth[R](s, 1).RoundKind = roundStatistics }, "round 1 of job j: a round of kind 1 has no place here"},
		{"evaluation before training", func(s *tale) { nth[R](s, 1).RoundKind = roundEvaluation }, "round 1 of job j: a round of kind 3 has no place here"},
		{"another kind at the second attempt", func(s *tale) {
			r := nth[R](s, 3)
			s.insertBefore(r, copyOf(r), &RoundAbandoned{"j", 2, 1, "too few"})
			r.Attempt, r.RoundKind, r.Model, r.Candidates = 2, roundTraining, made(1), nil
		}, "round 2 of job j: a round of kind 2 has no place here"},
		{"training after the evaluation", func(s *tale) { s.insertBefore(nth[*Released](s, 0), f.round(3, 1, roundTraining, "m n")...) }, "round 3 of job j: a round of kind 2 has no place here"},
		{"training from another model", func(s *tale) { nth[R](s, 2).Model = dig(9) }, "round 1 of job j: it does not start from the model that the round before it made"},
		{"statistics of a model", func(s *tale) { nth[R](s, 0).Model = dig(9) }, "round 0 of job j: it does not start from the model"},
		{"candidates in training", func(s *tale) { nth[R](s, 1).Candidates = [][32]byte{candidate} }, "round 1 of job j: 1 candidates in a round of kind 2"},
		{"evaluation of nothing", func(s *tale) { nth[R](s, 3).Candidates = nil }, "round 2 of job j: 0 candidates in a round of kind 3"},
		{"evaluation of another model", func(s *tale) { nth[R](s, 3).Candidates[0] = dig(9) }, "round 2 of job j: its first candidate is not the model that training made"},
		{"cohort out of order", func(s *tale) { slices.Reverse(nth[R](s, 0).Cohort) }, "round 0 of job j: its cohort is not a sorted set"},
		{"node twice in the cohort", func(s *tale) { nth[R](s, 0).Cohort[1] = "m" }, "round 0 of job j: its cohort is not a sorted set"},
		{"stranger in the cohort", func(s *tale) { nth[R](s, 0).Cohort[2] = "p" }, "round 0 of job j: its cohort names node p, which is not enrolled"},
		{"no minimum cohort", func(s *tale) { nth[R](s, 0).MinimumCohort = 0 }, "round 0 of job j: its goal is 3 of a cohort of 3, the minimum is 0"},
		{"goal below the minimum cohort", func(s *tale) { nth[R](s, 0).Goal = 1 }, "round 0 of job j: its goal is 1 of a cohort of 3, the minimum is 2"},
		{"goal above the cohort", func(s *tale) { nth[R](s, 0).Goal = 4 }, "round 0 of job j: its goal is 4 of a cohort of 3, the minimum is 2"},
		{"minimum cohort lowered", func(s *tale) { nth[R](s, 2).MinimumCohort = 1 }, "round 1 of job j: its minimum cohort is 1, that of the round before 2"},

		// What counts.
		{"batch of a round that is not open", func(s *tale) { nth[*BatchAccepted](s, 0).Round = 1 }, "batch accepted of round 1 attempt 1 of job j, which is not open"},
		{"batch of another attempt", func(s *tale) { nth[*BatchAccepted](s, 0).Attempt = 2 }, "batch accepted of round 0 attempt 2 of job j, which is not open"},
		{"batch before any round", func(s *tale) { s.insertBefore(nth[R](s, 0), copyOf(nth[*BatchAccepted](s, 0))) }, "batch accepted of round 0 attempt 1 of job j, which is not open"},
		{"batch after the cut", func(s *tale) { s.insertAfter(nth[*RoundCut](s, 1), late(nth[*BatchAccepted](s, 4))) }, "batch accepted of round 1 of job j is out of order"},
		{"batch accepted twice", func(s *tale) { nth[*BatchAccepted](s, 1).Batch = nth[*BatchAccepted](s, 0).Batch }, "round 0 of job j accepts one batch twice"},
		{"empty batch", func(s *tale) { nth[*BatchAccepted](s, 0).Accepted = nil }, "round 0 of job j accepts an empty batch"},
		{"batch of a stranger", func(s *tale) { nth[*BatchAccepted](s, 0).Coordinator = "x" }, "round 0 of job j accepts a batch of x, which is no coordinator"},
		{"batch out of order", func(s *tale) { slices.Reverse(nth[*BatchAccepted](s, 4).Accepted) }, "round 1 of job j accepts a batch that does not list its nodes as a sorted set"},
		{"node twice in a batch", func(s *tale) { nth[*BatchAccepted](s, 4).Accepted[1].Node = "m" }, "round 1 of job j accepts a batch that does not list its nodes as a sorted set"},
		{"batch from a node that is not enrolled", func(s *tale) { nth[*BatchAccepted](s, 1).Accepted[1].Node = "p" }, "round 0 of job j counts node p: it is not in the cohort"},
		{"batch from a node outside the cohort", func(s *tale) { r := nth[R](s, 0); r.Cohort, r.Goal = r.Cohort[:2], 2 }, "round 0 of job j counts node o: it is not in the cohort"},
		{"node counted twice", func(s *tale) { nth[*BatchAccepted](s, 1).Accepted[0].Node = "m" }, "round 0 of job j counts node m: it is counted already"},
		{"update counted under two names", func(s *tale) {
			b := nth[*BatchAccepted](s, 1)
			b.Accepted[1].Update = b.Accepted[0].Update
		}, "round 0 of job j counts node o: its update is counted already"},
		{"update counted in two rounds", func(s *tale) {
			nth[*BatchAccepted](s, 4).Accepted[0].Update = nth[*BatchAccepted](s, 0).Accepted[0].Update
		}, "round 1 of job j counts node m: its update is counted already"},
		{"weight 0", func(s *tale) { nth[*BatchAccepted](s, 0).Accepted[0].Weight = 0 }, "round 0 of job j counts node m: weight 0 is outside [1, 1048576]"},
		{"negative weight", func(s *tale) { nth[*BatchAccepted](s, 0).Accepted[0].Weight = -1 }, "round 0 of job j counts node m: weight -1 is outside"},
		{"weight above the bound", func(s *tale) { nth[*BatchAccepted](s, 0).Accepted[0].Weight = 1<<20 + 1 }, "round 0 of job j counts node m: weight 1048577 is outside"},
		{"cut below the minimum cohort", func(s *tale) {
			s.drop(nth[*BatchAccepted](s, 1))
			c := nth[*RoundCut](s, 0)
			c.Count, c.Weight = 1, 1
		}, "round 0 of job j was cut with 1 updates, its minimum cohort is 2"},
		{"cut twice", func(s *tale) { s.insertAfter(nth[*RoundCut](s, 0), copyOf(nth[*RoundCut](s, 0))) }, "round cut of round 0 of job j is out of order"},
		{"cut with another count", func(s *tale) { nth[*RoundCut](s, 0).Count++ }, "round cut of round 0 of job j: it counts 4 updates of weight 6, the accepted batches hold 3 of 6"},
		{"cut with another weight", func(s *tale) { nth[*RoundCut](s, 0).Weight++ }, "round cut of round 0 of job j: it counts 3 updates of weight 7, the accepted batches hold 3 of 6"},
		{"batch left out", func(s *tale) { s.drop(nth[*BatchAccepted](s, 0)) }, "round cut of round 0 of job j: it counts 3 updates of weight 6, the accepted batches hold 2 of 5"},
		{"charge for fewer nodes", func(s *tale) { nth[*Charged](s, 0).Nodes-- }, "charged of round 0 of job j: it counts 2 updates of weight 6, the accepted batches hold 3 of 6"},
		{"charge before the cut", func(s *tale) { c := nth[*Charged](s, 0); s.drop(c); s.insertBefore(nth[*RoundCut](s, 0), c) }, "charged of round 0 of job j is out of order"},
		{"charged twice", func(s *tale) { s.insertAfter(nth[*Charged](s, 0), copyOf(nth[*Charged](s, 0))) }, "charged of round 0 of job j is out of order"},

		// What a round made.
		{"closed without a charge", func(s *tale) { s.drop(nth[*Charged](s, 0)) }, "round closed of round 0 of job j is out of order"},
		{"closed without a cut", func(s *tale) { s.drop(nth[*RoundCut](s, 0)); s.drop(nth[*Charged](s, 0)) }, "round closed of round 0 of job j is out of order"},
		{"closed after being abandoned", func(s *tale) { s.insertAfter(nth[*RoundAbandoned](s, 0), closeOf(f, 1, 1)) }, "round closed of round 1 attempt 1 of job j, which is not open"},
		{"closed twice", func(s *tale) { s.insertAfter(nth[*RoundClosed](s, 0), copyOf(nth[*RoundClosed](s, 0))) }, "round closed of round 0 attempt 1 of job j, which is not open"},
		{"another attempt closed", func(s *tale) { nth[*RoundClosed](s, 1).Attempt = 1 }, "round closed of round 1 attempt 1 of job j, which is not open"},
		{"closed with another count", func(s *tale) { nth[*RoundClosed](s, 0).Count-- }, "round closed of round 0 of job j: it counts 2 updates of weight 6, the accepted batches hold 3 of 6"},
		{"closed with another weight", func(s *tale) { nth[*RoundClosed](s, 0).Weight-- }, "round closed of round 0 of job j: it counts 3 updates of weight 5, the accepted batches hold 3 of 6"},
		{"closed with another sum", func(s *tale) { nth[*RoundClosed](s, 1).Sum = dig(9) }, "round 1 of job j closed with another sum than that of its only batch"},
		{"training that made nothing", func(s *tale) { nth[*RoundClosed](s, 1).Model = [32]byte{} }, "round 1 of job j closed with what a round of kind 2 does not make"},
		{"training that made statistics", func(s *tale) { nth[*RoundClosed](s, 1).Statistics = dig(9) }, "round 1 of job j closed with what a round of kind 2 does not make"},
		{"statistics that made none", func(s *tale) { nth[*RoundClosed](s, 0).Statistics = [32]byte{} }, "round 0 of job j closed with what a round of kind 1 does not make"},
		{"evaluation that made a model", func(s *tale) { nth[*RoundClosed](s, 2).Model = dig(9) }, "round 2 of job j closed with what a round of kind 3 does not make"},
		{"more correct than examples", func(s *tale) { nth[*RoundClosed](s, 1).EvalCorrect = 11 }, "round 1 of job j closed with 11 of 10 examples correct"},
		{"less than nothing correct", func(s *tale) { nth[*RoundClosed](s, 1).EvalCorrect = -1 }, "round 1 of job j closed with -1 of 10 examples correct"},
		{"a loss below nothing", func(s *tale) { nth[*RoundClosed](s, 1).EvalLoss = -1 }, "round 1 of job j closed with 9 of 10 examples correct and a loss of -1"},
		{"statistics that evaluated", func(s *tale) { nth[*RoundClosed](s, 0).EvalExamples = 5 }, "round 0 of job j closed with 0 of 5 examples correct"},
		{"abandoned after its close", func(s *tale) { s.insertAfter(nth[*RoundClosed](s, 0), &RoundAbandoned{"j", 0, 1, "late"}) }, "round abandoned of round 0 attempt 1 of job j, which is not open"},
		{"abandoned twice", func(s *tale) { s.insertAfter(nth[*RoundAbandoned](s, 0), copyOf(nth[*RoundAbandoned](s, 0))) }, "round abandoned of round 1 attempt 1 of job j, which is not open"},

		// What is published.
		{"release of no job", func(s *tale) { nth[*Released](s, 0).Job = "k" }, `released: job "k" does not run`},
		{"release while a round is open", func(s *tale) { s.drop(nth[*RoundClosed](s, 2)) }, "released: round 2 of job j is still open"},
		{"released twice", func(s *tale) {
			again := copyOf(nth[*Released](s, 0))
			again.Version = 2
			s.insertAfter(nth[*Released](s, 0), again)
		}, "job j released twice"},
		{"version left out", func(s *tale) { nth[*Released](s, 0).Version = 2 }, "release 2 of model model does not follow 0"},
		{"release of another round", func(s *tale) { nth[*Released](s, 0).Round = 2 }, "release 1 of model model is of round 2 of job j, whose last training round is 1"},
		{"release before training", func(s *tale) {
			s.insertAfter(nth[*RoundClosed](s, 0), &Released{"model", 1, "j", 0, []Variant{{"float32", made(0), 1, true, ""}}})
		}, "release 1 of model model is of round 0 of job j, whose last training round is 0"},
		{"release of nothing", func(s *tale) { nth[*Released](s, 0).Variants = nil }, "release 1 of model model does not begin with the model that round 1 made"},
		{"release of an older model", func(s *tale) { nth[*Released](s, 0).Variants[0].Blob = made(0) }, "release 1 of model model does not begin with the model that round 1 made"},
		{"release of what was not evaluated", func(s *tale) { nth[*Released](s, 0).Variants[1].Blob = dig(9) }, "release 1 of model model: its variants are not those that were evaluated"},
		{"evaluated variant not mentioned", func(s *tale) { r := nth[*Released](s, 0); r.Variants = r.Variants[:1] }, "release 1 of model model: its variants are not those that were evaluated"},
		{"variant named twice", func(s *tale) { nth[*Released](s, 0).Variants[1].Name = "float32" }, "release 1 of model model names variant float32 twice"},
		{"published though its gate failed", func(s *tale) { nth[*Released](s, 0).Variants[1].Published = true }, "variant int8 missed its gate and was published"},
		{"withheld for no reason", func(s *tale) { nth[*Released](s, 0).Variants[1].Reason = "" }, "variant int8 missed its gate and was published, or was withheld for no reason"},
		{"job ended twice", func(s *tale) { s.add(&JobEnded{"j", "failed", ""}) }, `job ended: job "j" does not run`},
		{"job ended with an open round", func(s *tale) { s.insertBefore(nth[*RoundCut](s, 1), &JobEnded{"j", "failed", ""}) }, "job ended: round 1 of job j is still open"},
		{"job ended in a way there is not", func(s *tale) { nth[*JobEnded](s, 0).State = "running" }, `job j ended as "running", which is neither finished, failed nor stopped`},

		// Who was refused.
		{"incident of a stranger", func(s *tale) { nth[*Incident](s, 1).Node = "p" }, "incident of node p in round 1 of job j, which is not in its cohort"},
		{"incident for no known reason", func(s *tale) { nth[*Incident](s, 1).Reason = "bored" }, `incident of node n for "bored", which is no reason`},
		{"incident of no job", func(s *tale) { nth[*Incident](s, 1).Job = "k" }, "incident of node n in round 1 attempt 2 of job k, which is not its last"},
		{"incident before the first round", func(s *tale) { s.insertBefore(nth[R](s, 0), &Incident{"j", 0, 0, "n", ReasonShape, nil, nil}) }, "incident of node n in round 0 attempt 0 of job j, which is not its last"},
		{"incident of an older round", func(s *tale) { nth[*Incident](s, 1).Round = 0 }, "incident of node n in round 0 attempt 2 of job j, which is not its last"},
		{"incident of an older attempt", func(s *tale) { nth[*Incident](s, 1).Attempt = 1 }, "incident of node n in round 1 attempt 1 of job j, which is not its last"},
		{"incident twice", func(s *tale) { s.insertAfter(nth[*Incident](s, 1), copyOf(nth[*Incident](s, 1))) }, "incident of node n in round 1 of job j: it has one already"},
		{"refusal after an equivocation", func(s *tale) {
			x := nth[*Incident](s, 1)
			s.insertBefore(x, &Incident{"j", 1, 2, "n", ReasonEquivocation, digest(1), digest(2)})
		}, "incident of node n in round 1 of job j: it has one already"},
		{"equivocation twice", func(s *tale) {
			x := &Incident{"j", 1, 2, "n", ReasonEquivocation, digest(1), digest(2)}
			s.insertAfter(nth[*Incident](s, 1), x, copyOf(x))
		}, "incident of node n in round 1 of job j: it has one already"},
		{"equivocation with one update", equivocation(digest(1), nil), "incident of node n: two different updates are an equivocation"},
		{"equivocation with the other update", equivocation(nil, digest(1)), "incident of node n: two different updates are an equivocation"},
		{"equivocation with the same update", equivocation(digest(1), digest(1)), "incident of node n: two different updates are an equivocation"},
		{"another refusal with an update", func(s *tale) { nth[*Incident](s, 1).First = digest(1) }, "incident of node n: two different updates are an equivocation"},
		{"another refusal with another update", func(s *tale) { nth[*Incident](s, 1).Second = digest(1) }, "incident of node n: two different updates are an equivocation"},
		{"token that was not used came back", func(s *tale) { nth[*Incident](s, 0).First = digest(7) }, thief},
		{"token came back twice", func(s *tale) { s.add(copyOf(nth[*Incident](s, 0))) }, thief},
		{"token came back with the same key", func(s *tale) { x := nth[*Incident](s, 0); x.Second = x.First }, thief},
		{"token came back without a key", func(s *tale) { nth[*Incident](s, 0).Second = nil }, thief},
		{"token came back in a job", func(s *tale) { nth[*Incident](s, 0).Job = "j" }, thief},
		{"token came back in a round", func(s *tale) { nth[*Incident](s, 0).Round = 1 }, thief},
		{"token came back in an attempt", func(s *tale) { nth[*Incident](s, 0).Attempt = 1 }, thief},
	} {
		s := &tale{f.story()}
		c.change(s)
		r := f.verify(f.bundle(s.records))
		if names, details := failed(r); !slices.Equal(names, []string{"history"}) || !strings.Contains(details, c.want) || r.OK || r.Self {
			t.Errorf("%s: failed are %v: %s; want %q", c.name, names, details, c.want)
		}
	}
}

// late is another batch for the attempt of b.
func late(b *BatchAccepted) *BatchAccepted {
	c := copyOf(b)
	c.Batch = dig(0x90)
	return c
}

func closeOf(f *federation, round uint64, attempt uint32) Record {
	records := f.round(round, attempt, roundTraining, "m", "n")
	return records[len(records)-1]
}

// The sum of a round's weights is bounded, not only each of them: 65,537 updates of the largest weight pass 2^36.
func TestWeightOfARoundIsBounded(t *testing.T) {
	h := &history{updates: map[[32]byte]bool{}}
	a := &attemptHistory{RoundOpened: &RoundOpened{Cohort: []string{"m"}}, accepted: map[string]bool{}, weight: maxTotalWeight - 1}
	if err := h.count(a, Accepted{"m", dig(1), 2}); err == nil || !strings.Contains(err.Error(), "the round's weight passes 68719476736") {
		t.Error(err)
	}
	if err := h.count(a, Accepted{"m", dig(1), 1}); err != nil || a.weight != maxTotalWeight {
		t.Errorf("at the bound: %v, weight %d", err, a.weight)
	}
}

// A founder is who the root certified as coordinator under that name, when the federation was founded.
func TestFoundersAreCertified(t *testing.T) {
	other := found(t, 2, "a", "b", "c")
	for name, c := range map[string]struct {
		change func(f *federation)
		want   string
	}{
		"an operator": {func(f *federation) {
			f.genesis.Coordinators[0].Chain = f.certify(seal.RoleOperator, "a", f.keys["a"], month)
		}, "certificate of coordinator a: it is of operator a"},
		"another name": {func(f *federation) {
			f.genesis.Coordinators[0].Chain = f.certify(seal.RoleCoordinator, "x", f.keys["a"], month)
		}, "certificate of coordinator a: it is of coordinator x"},
		"a node under an issuer": {func(f *federation) { f.genesis.Coordinators[0].Chain = f.node("a") }, "certificate of coordinator a: it is of node a"},
		"the issuer itself":      {func(f *federation) { f.genesis.Coordinators[0].Chain = f.node("a")[1:] }, "certificate of coordinator a: critical extension that no identity has"},
		"of another federation":  {func(f *federation) { f.genesis.Coordinators[0].Chain = other.genesis.Coordinators[0].Chain }, "certificate of coordinator a: certificate is not of this federation"},
		"without a certificate":  {func(f *federation) { f.genesis.Coordinators[0].Chain = nil }, "certificate of coordinator a: chain of 0 certificates"},
		"founded too late":       {func(f *federation) { f.genesis.TimeMS = noon.Add(month + 1e9).UnixMilli() }, "certificate of coordinator a: a, valid from"},
		"founded too early":      {func(f *federation) { f.genesis.TimeMS = 0 }, "certificate of coordinator a: root: shop, valid from"},
		"out of order":           {func(f *federation) { slices.Reverse(f.genesis.Coordinators) }, "the founding coordinators are not a sorted set"},
		"named twice":            {func(f *federation) { f.genesis.Coordinators[1] = f.genesis.Coordinators[0] }, "the founding coordinators are not a sorted set"},
		"another cluster":        {func(f *federation) { f.genesis.Cluster = "stall" }, `the root certificate is of federation "shop", not "stall"`},
		"no root":                {func(f *federation) { f.genesis.Root = []byte("x") }, "root certificate: x509"},
		"a root that is none":    {func(f *federation) { f.genesis.Root = f.genesis.Coordinators[0].Chain[0] }, "root certificate: x509: invalid signature: parent certificate cannot sign"},
	} {
		f := found(t, 1, "a", "b", "c")
		b := f.bundle(f.story())
		c.change(f)
		b.Records = encoded(f.story())
		b.Head = f.head(b.Records, f.names...)
		names, details := failed(f.verify(b))
		if !slices.Equal(names, []string{"history", "signatures"}) || !strings.Contains(details, "record 0: "+c.want) ||
			!strings.Contains(details, "there is no lawful genesis record") {
			t.Errorf("founder %s: failed are %v: %s; want %q", name, names, details, c.want)
		}
	}
}

// node is the certificate of a node, under an issuer.
func (f *federation) node(name string) [][]byte {
	f.t.Helper()
	key, issuing := f.key(), f.key()
	cert, err := f.root.CertifyIssuer("a", issuing.Public().(ed25519.PublicKey), noon, month)
	if err != nil {
		f.t.Fatal(err)
	}
	chain, err := (&seal.Issuer{Certificate: cert, Key: issuing}).CertifyNode(name, key.Public().(ed25519.PublicKey), noon, month)
	if err != nil {
		f.t.Fatal(err)
	}
	return chain
}

func TestHistoryBeginsWithTheGenesis(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	for name, c := range map[string]struct {
		records [][]byte
		want    string
	}{
		"no records":        {nil, "no genesis record"},
		"a token first":     {encoded(f.story()[4:]), "record 0: token created is out of place"},
		"a damaged record":  {append(encoded(f.story()[:2]), []byte{1, 99}), "record 2: decode record: kind 99 is not known"},
		"a damaged genesis": {[][]byte{{1, 1}}, "record 0: decode record (genesis)"},
		"an empty record":   {append(encoded(f.story()[:2]), nil), "record 2: decode record"},
	} {
		if _, err := replay(c.records); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestEachKindHasARule(t *testing.T) {
	for k := Kind(2); int(k) < len(kindNames); k++ {
		h, err := replay(encoded([]Record{found(t, 1, "a").genesis, blank(k)}))
		if h.genesis == nil || err == nil && k != KindJobSubmitted && k != KindPersonRevoked || err != nil && strings.Contains(err.Error(), "no rule") {
			t.Errorf("%v: %v", k, err)
		}
	}
}
