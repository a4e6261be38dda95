package state_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"
)

// good are commands that are accepted at a stage of the transcript "job". The tables below spoil one field of them.
var good = map[string]struct{ stage, command string }{
	"token": {"submitted", `create_token { id: "t9" secret_hash: @secret expires_ms: 9000 role: "node" labels { key: "site" value: "quay" } }`},
	"epoch": {"submitted", `announce_epoch { key { coordinator: "bob" epoch: 2 recipient: "age1bob2" signature: "signed" } }`},
	"enrol": {"submitted", `enrol { token_id: "t5" secret_hash: @secret-5 name: "quay" public_key: @key-quay time_ms: 2000 }`},
	"open":  {"statistics closed", `open_round { key { job: "purchase" round: 1 attempt: 1 } kind: ROUND_KIND_TRAIN seed: 7 roster: 4 available: $bits(1111) term: 1 model: @model-0 }`},
	"evaluate": {"second training", `open_round { key { job: "purchase" round: 3 attempt: 1 } kind: ROUND_KIND_EVALUATE seed: 7 roster: 4 available: $bits(1111) term: 2
		candidates: @model-2 candidates: @int8 }`},
	"accept": {"training open", `accept_batch { key { job: "purchase" round: 1 attempt: 1 } batch: @b1 sum: @sum coordinator: "ada" weight: 30 holders: "ada" holders: "bob"
		accepted { node: "east" update: @east weight: 10 } accepted { node: "west" update: @west weight: 20 } }`},
	"cut":      {"training collected", `cut_round { key { job: "purchase" round: 1 attempt: 1 } term: 1 }`},
	"charge":   {"training cut", `charge { key { job: "purchase" round: 1 attempt: 1 } mechanism: "none" term: 1 }`},
	"found":    {"statistics charged", `close_round { key { job: "purchase" attempt: 1 } sum: @sum-b0 model: @model statistics: @statistics term: 1 }`},
	"close":    {"training charged", `close_round { key { job: "purchase" round: 1 attempt: 1 } sum: @sum model: @model-1 term: 1 evaluations { $eval(3; 700×30; 300×40) } }`},
	"measure":  {"evaluation charged", `close_round { key { job: "purchase" round: 3 attempt: 1 } sum: @sum term: 2 ` + strings.Repeat(`evaluations { $eval(3; 700×30; 300×40) }`, 4) + `}`},
	"abandon":  {"training open", `abandon_round { key { job: "purchase" round: 1 attempt: 1 } reason: "too few" term: 1 }`},
	"incident": {"training open", `record_incident { key { job: "purchase" round: 1 attempt: 1 } node: "east" reason: "equivocation" first: @one second: @other }`},
	"publish": {"evaluation closed", `publish_release { job: "purchase" round: 2 evaluation { job: "purchase" round: 3 attempt: 1 } term: 2
		variants { name: "float32" blob: @model-2 bytes: 4000 } variants { name: "int8" blob: @int8 bytes: 1000 }
		variants { name: "student" blob: @student bytes: 2000 } variants { name: "student-int8" blob: @student-int8 bytes: 500 } }`},
	"end": {"submitted", `end_job { job: "purchase" state: "failed" reason: "nobody came" term: 1 }`},
}

func TestGoodCommandsAreAccepted(t *testing.T) {
	for name, g := range good {
		s, e := goodState(t, g.stage)
		e.data = encoded(t, g.command)
		if _, err := e.apply(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// goodState is the state of a stage, with a token that nobody has used.
func goodState(t testing.TB, stage string) (*state.State, entry) {
	s, e := stateAt(t, "job", stage)
	e.data = encoded(t, `create_token { id: "t5" secret_hash: @secret-5 expires_ms: 9000 role: "node" }`)
	s, err := e.apply(s)
	if err != nil {
		t.Fatal(err)
	}
	e.index++
	return s, e
}

func TestBadCommandsAreRefusedWhole(t *testing.T) {
	long := strings.Repeat("x", 5000)
	key := `key { job: "purchase" round: 1 attempt: 1 }`
	for _, c := range []struct {
		good, old, spoilt string // in this command, this becomes that
		want              string
		is                error // what callers branch on
	}{
		{"token", `id: "t9"`, ``, `token name ""`, nil},
		{"token", `id: "t9"`, `id: "T 9"`, `token name "T 9"`, nil},
		{"token", `id: "t9"`, `id: "t1"`, `token t1 exists already`, state.ErrExists},
		{"token", `@secret`, `"short"`, `secret_hash: digest of 5 bytes, want 32`, state.ErrFormat},
		{"token", `9000`, `-1`, `time -1 ms is not after 1970`, state.ErrFormat},
		{"token", `role: "node"`, `role: "operator"`, `token for role "operator"`, nil},
		{"token", `key: "site"`, `key: ""`, `label of 0 bytes`, state.ErrFormat},
		{"token", `value: "quay"`, `value: "` + long + `"`, `label site of 5000 bytes`, state.ErrFormat},

		{"epoch", `key { coordinator: "bob" epoch: 2 recipient: "age1bob2" signature: "signed" }`, ``, `coordinator "" is not a voter`, nil},
		{"epoch", `"bob"`, `"eve"`, `coordinator "eve" is not a voter`, nil},
		{"epoch", `epoch: 2`, ``, `epoch 0 of bob does not follow 1`, nil},
		{"epoch", `recipient: "age1bob2"`, ``, `recipient of 0 bytes`, state.ErrFormat},
		{"epoch", `age1bob2`, long, `recipient of 5000 bytes`, state.ErrFormat},
		{"epoch", `"signed"`, `"` + long + `"`, `a signature of 5000 bytes`, state.ErrFormat},
		{"epoch", `epoch: 2`, `epoch: 2 chain: "certificate"`, `1 certificates`, state.ErrFormat},

		{"enrol", `"t5"`, `"t6"`, `it is not known`, state.ErrToken},
		{"enrol", `"t5"`, `""`, `it is not known`, state.ErrToken},
		{"enrol", `@secret-5`, `""`, `its secret is wrong`, state.ErrToken},
		{"enrol", `"quay"`, `""`, `node name ""`, nil},
		{"enrol", `"quay"`, `"../quay"`, `node name "../quay"`, nil},
		{"enrol", `"quay"`, `"` + long[:64] + `"`, `want 1 to 63 of`, nil},
		{"enrol", `"quay"`, `"east"`, `node east exists already`, state.ErrExists},
		{"enrol", `@key-quay`, `"short"`, `public key of 5 bytes`, state.ErrFormat},
		{"enrol", `2000`, `0`, `time 0 ms`, state.ErrFormat},
		{"enrol", `2000`, `9001`, `it has expired`, state.ErrToken},

		{"open", key, ``, `job "" does not exist`, nil},
		{"open", `"purchase"`, `"sale"`, `job "sale" does not exist`, nil},
		{"open", `round: 1`, `round: 0`, `open round 0`, state.ErrStale},
		{"open", `round: 1`, `round: 2`, `open round 2`, state.ErrStale},
		{"open", `attempt: 1`, `attempt: 0`, `attempt 0`, state.ErrStale},
		{"open", `attempt: 1`, `attempt: 2`, `attempt 2`, state.ErrStale},
		{"open", `TRAIN`, `STATISTICS`, `open round 1`, state.ErrStale},
		{"open", `TRAIN`, `UNSPECIFIED`, `open round 1`, state.ErrStale},
		{"open", `kind: ROUND_KIND_TRAIN`, `kind: 9`, `open round 1`, state.ErrStale},
		{"open", `roster: 4`, `roster: 5`, `open round 1`, state.ErrStale},
		{"open", `term: 1`, `term: 2`, `plan of term 2 in term 1`, state.ErrStale},
		{"open", `$bits(1111)`, `""`, `bitmap of 0 bytes is not one of 4 nodes`, state.ErrFormat},
		{"open", `$bits(1111)`, `$bits(111100000)`, `bitmap of 2 bytes`, state.ErrFormat},
		{"open", `$bits(1111)`, `$bits(11111)`, `bitmap of 1 bytes`, state.ErrFormat},
		{"open", `$bits(1111)`, `$bits(1000)`, `1 available with budget, the minimum cohort is 2`, state.ErrCohort},
		{"open", `model: @model-0`, ``, `a ROUND_KIND_TRAIN round with model 0000`, state.ErrFormat},
		{"open", `@model-0`, `"m"`, `model: digest of 1 bytes`, state.ErrFormat},
		{"open", `@model-0`, quoted(make([]byte, 32)), `model: a digest of zeros`, state.ErrFormat},
		{"open", `@model-0`, `@model-9`, `its model is not the job's`, state.ErrStale},
		{"open", `@model-0`, `@model-0 candidates: @int8`, `and 1 candidates`, state.ErrFormat},
		{"open", `@model-0`, `@model-0 noise_seed: @seed`, `a noise seed without a mechanism`, state.ErrFormat},
		{"evaluate", `candidates: @model-2 candidates: @int8`, ``, `0 candidates`, state.ErrFormat},
		{"evaluate", `candidates: @model-2`, `candidates: @student`, `its model is not the job's`, state.ErrStale},
		{"evaluate", `@int8`, `@model-2`, `is named twice`, state.ErrFormat},
		{"evaluate", `@int8`, `"c"`, `candidates: digest of 1 bytes`, state.ErrFormat},
		{"evaluate", `candidates: @int8`, candidates(8), `9 candidates`, state.ErrFormat},

		{"accept", key, ``, `job "" does not exist`, nil},
		{"accept", `round: 1`, `round: 0`, `round 0 attempt 1`, state.ErrStale},
		{"accept", `round: 1`, `round: 2`, `round 2 attempt 1`, state.ErrStale},
		{"accept", `attempt: 1`, `attempt: 0`, `round 1 attempt 0`, state.ErrStale},
		{"accept", `@b1`, `""`, `batch: digest of 0 bytes`, state.ErrFormat},
		{"accept", `@b1`, quoted(make([]byte, 32)), `batch: a digest of zeros`, state.ErrFormat},
		{"accept", `@sum`, `"sum"`, `sum: digest of 3 bytes`, state.ErrFormat},
		{"accept", `@east`, `"update"`, `update of node east: digest of 6 bytes`, state.ErrFormat},
		{"accept", `accepted { node: "east" update: @east weight: 10 } accepted { node: "west" update: @west weight: 20 }`, ``, `holds 0 updates`, state.ErrFormat},
		{"accept", `"east"`, `""`, `node  is not in the cohort`, nil},
		{"accept", `"west"`, `"zoe"`, `node zoe is not in the cohort`, nil},
		{"accept", `accepted { node: "west"`, `accepted { node: "south"`, `node south is not in the cohort`, nil}, // enrolled, not invited
		{"accept", `"east"`, `"west"`, `does not list its nodes in order`, state.ErrFormat},
		{"accept", `"east"`, `"zoe"`, `does not list its nodes in order`, state.ErrFormat},
		{"accept", `@west`, `@east`, `node west brings an update that counts for another node`, state.ErrFormat},
		{"accept", `weight: 30`, `weight: 31`, `claims weight 31 and holds 2 updates of 30`, state.ErrFormat},
		{"accept", `weight: 30`, `weight: -30`, `claims weight -30`, state.ErrFormat},
		{"accept", `weight: 10 } accepted { node: "west" update: @west weight: 20`, `weight: 0 } accepted { node: "west" update: @west weight: 30`, `node east: weight 0 is outside [1, 1000]`, nil},
		{"accept", `weight: 10 } accepted { node: "west" update: @west weight: 20`, `weight: -5 } accepted { node: "west" update: @west weight: 35`, `node east: weight -5`, nil},
		{"accept", `weight: 30 holders: "ada" holders: "bob"
		accepted { node: "east" update: @east weight: 10`, `weight: 1021 holders: "ada" holders: "bob"
		accepted { node: "east" update: @east weight: 1001`, `node east: weight 1001 is outside [1, 1000]`, nil},
		{"accept", `coordinator: "ada"`, `coordinator: "cyd"`, `batch of cyd is held by 2 voters`, nil},
		{"accept", `coordinator: "ada"`, ``, `batch of  is held by 2 voters`, nil},
		{"accept", `holders: "bob"`, ``, `held by 1 voters`, nil},
		{"accept", `holders: "bob"`, `holders: "ada"`, `held by 1 voters`, nil},
		{"accept", `holders: "bob"`, `holders: "eve"`, `held by 1 voters`, nil},

		{"cut", key, ``, `job "" does not exist`, nil},
		{"cut", `round: 1`, `round: 2`, `round 2 attempt 1`, state.ErrStale},
		{"cut", `term: 1`, `term: 2`, `cut by the plan of term 2, not 1`, state.ErrStale},
		{"charge", key, ``, `job "" does not exist`, nil},
		{"charge", `attempt: 1`, `attempt: 2`, `round 1 attempt 2`, state.ErrStale},
		{"charge", `term: 1`, `term: 2`, `charge by the plan of term 2, not 1`, state.ErrStale},
		{"charge", `"none"`, `"gaussian"`, `mechanism "gaussian", want none`, state.ErrFormat},
		{"charge", `"none"`, `""`, `mechanism "", want none`, state.ErrFormat},

		{"found", `@sum-b0`, `@sum`, `is not that of the round's only batch`, state.ErrFormat},
		{"found", `model: @model`, ``, `close of a ROUND_KIND_STATISTICS round`, state.ErrFormat},
		{"found", `statistics: @statistics`, ``, `close of a ROUND_KIND_STATISTICS round`, state.ErrFormat},
		{"found", `@statistics`, `"s"`, `statistics: digest of 1 bytes`, state.ErrFormat},
		{"found", `term: 1`, `term: 1 evaluations { $eval(3; 700×1; 300×1) }`, `1 evaluations, want 0`, state.ErrFormat},
		{"close", key, ``, `job "" does not exist`, nil},
		{"close", `round: 1`, `round: 2`, `round 2 attempt 1`, state.ErrStale},
		{"close", `term: 1`, `term: 2`, `close by the plan of term 2, not 1`, state.ErrStale},
		{"close", `sum: @sum`, ``, `sum: digest of 0 bytes`, state.ErrFormat},
		{"close", `model: @model-1`, ``, `close of a ROUND_KIND_TRAIN round`, state.ErrFormat},
		{"close", `@model-1`, `"m"`, `model: digest of 1 bytes`, state.ErrFormat},
		{"close", `@model-1`, `@model-1 statistics: @statistics`, `close of a ROUND_KIND_TRAIN round`, state.ErrFormat},
		{"close", `@model-1`, `@model-1 strategy_state: @moments`, `strategy state`, state.ErrFormat},
		{"close", `evaluations { $eval(3; 700×30; 300×40) }`, ``, `0 evaluations, want 1`, state.ErrFormat},
		{"close", `$eval(3`, `$eval(2`, `evaluation over 2 nodes, want 3`, state.ErrFormat},
		{"close", `$eval(3; 700×30; 300×40)`, `nodes: 3 examples: 70 correct: 70`, `histograms of 0 and 0 bins`, state.ErrFormat},
		{"close", `$eval(3; 700×30; 300×40)`, `nodes: 3 examples: 1 correct: 2`, `2 correct of 1 examples`, state.ErrFormat},
		{"close", `$eval(3; 700×30; 300×40)`, `nodes: 3 examples: -1`, `-1 examples`, state.ErrFormat},
		{"close", `$eval(3; 700×30; 300×40)`, `nodes: 3 examples: 1 loss: -1`, `loss -1`, state.ErrFormat},
		{"close", `$eval(3; 700×30; 300×40)`, `nodes: 3 examples: 1 loss: 67108865`, `loss 67108865`, state.ErrFormat},
		{"close", `$eval(3; 700×30; 300×40)`, `$eval(3; 700×3145728; 300×1)`, `3145729 examples is outside`, state.ErrFormat},
		{"close", `300×40`, `300×40 200×-1`, `bin 200`, state.ErrFormat},
		{"close", `evaluations {`, `evaluations { auc_millionths: 1000000`, `with an AUC`, state.ErrFormat},
		{"measure", `sum: @sum`, `sum: @sum model: @model`, `close of a ROUND_KIND_EVALUATE round`, state.ErrFormat},
		{"measure", `evaluations { $eval(3; 700×30; 300×40) }}`, `}`, `3 evaluations, want 4`, state.ErrFormat},

		{"abandon", key, ``, `job "" does not exist`, nil},
		{"abandon", `round: 1`, `round: 2`, `round 2 attempt 1`, state.ErrStale},
		{"abandon", `term: 1`, `term: 2`, `abandon by the plan of term 2, not 1`, state.ErrStale},
		{"abandon", `"too few"`, `""`, `reason of 0 bytes, want 1 to 4096`, state.ErrFormat},
		{"abandon", `too few`, long, `reason of 5000 bytes`, state.ErrFormat},

		{"incident", key, ``, `job "" does not exist`, nil},
		{"incident", `round: 1`, `round: 0`, `round 0 attempt 1`, state.ErrStale},
		{"incident", `"east"`, `"zoe"`, `incident of node "zoe"`, nil},
		{"incident", `"east"`, `"south"`, `incident of node "south", which is not in the cohort`, nil},
		{"incident", `"equivocation"`, `"rudeness"`, `incident reason "rudeness"`, state.ErrFormat},
		{"incident", `"equivocation"`, `"token-reuse"`, `incident reason "token-reuse"`, state.ErrFormat},
		{"incident", `"equivocation"`, `"shape"`, `incident shape names updates`, state.ErrFormat},
		{"incident", `second: @other`, ``, `update: digest of 0 bytes`, state.ErrFormat},
		{"incident", `@one`, `"one"`, `update: digest of 3 bytes`, state.ErrFormat},
		{"incident", `@other`, `@one`, `an equivocation of one update with itself`, state.ErrFormat},

		{"publish", `job: "purchase" round: 2`, `round: 2`, `job "" does not exist`, nil},
		{"publish", `round: 2`, `round: 1`, `publish round 1`, state.ErrStale},
		{"publish", `term: 2`, `term: 1`, `in term 1`, state.ErrStale},
		{"publish", `evaluation { job: "purchase" round: 3 attempt: 1 }`, ``, `no evaluation round measured these variants`, state.ErrStale},
		{"publish", `evaluation { job: "purchase"`, `evaluation { job: "sale"`, `no evaluation round`, state.ErrStale},
		{"publish", `round: 3`, `round: 2`, `no evaluation round`, state.ErrStale},
		{"publish", `attempt: 1`, `attempt: 2`, `no evaluation round`, state.ErrStale},
		{"publish", `term: 2`, `term: 2 validation: @set`, `not measured on its public set`, state.ErrFormat},
		{"publish", `variants { name: "student-int8" blob: @student-int8 bytes: 500 }`, ``, `no evaluation round measured these variants`, state.ErrStale},
		{"publish", `@int8`, `@other`, `variant int8 is not what round 3 evaluated`, state.ErrStale},
		{"publish", `@int8`, `"blob"`, `variant int8 is not what round 3 evaluated`, state.ErrStale},
		{"publish", `bytes: 1000`, `bytes: 1000 evaluation { nodes: 3 }`, `variant int8 is not what round 3 evaluated`, state.ErrStale},
		{"publish", `@model-2`, `@model-1`, `starts with the float32 model of round 2`, state.ErrFormat},
		{"publish", `"float32"`, `"float64"`, `starts with its float32 model`, state.ErrFormat},
		{"publish", `name: "student" `, `name: "teacher" `, `variant "teacher"`, state.ErrFormat},
		{"publish", `name: "student" `, `name: "int8" `, `variant int8 is named twice`, state.ErrFormat},
		{"publish", `bytes: 1000`, ``, `variant int8 has no bytes`, state.ErrFormat},
		{"publish", `bytes: 1000`, `bytes: 1000 published: true`, `variant int8 says whether it is published`, state.ErrFormat},
		{"publish", `bytes: 2000`, `bytes: 2000 reason: "too slow"`, `variant student says whether it is published`, state.ErrFormat},

		{"end", `job: "purchase"`, ``, `job "" does not exist`, nil},
		{"end", `"failed"`, `"running"`, `job state "running"`, state.ErrFormat},
		{"end", `"failed"`, `""`, `job state ""`, state.ErrFormat},
		{"end", `"nobody came"`, `""`, `reason of 0 bytes`, state.ErrFormat},
		{"end", `nobody came`, long, `reason of 5000 bytes`, state.ErrFormat},
		{"end", `term: 1`, `term: 2`, `end job purchase in term 2`, state.ErrStale},
	} {
		t.Run(fmt.Sprintf("%s %.40s", c.good, c.want), func(t *testing.T) {
			g := good[c.good]
			i := strings.LastIndex(g.command, c.old)
			if c.good != "measure" { // which says the same several times
				i = strings.Index(g.command, c.old)
			}
			if i < 0 {
				t.Fatalf("%q is not in the good command", c.old)
			}
			s, e := goodState(t, g.stage)
			e.data = encoded(t, g.command[:i]+c.spoilt+g.command[i+len(c.old):])
			if err := refused(t, s, e, c.want); c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
		})
	}
}

func candidates(n int) (text string) {
	for i := range n {
		text += fmt.Sprintf(" candidates: @c%d", i)
	}
	return text
}

func TestStepsOutOfOrderAreStale(t *testing.T) {
	for stage, commands := range map[string][]string{
		"submitted":          {"cut", "charge", "close", "accept", "abandon", "incident", "publish"},
		"training open":      {"open", "charge", "close", "publish", "end"},
		"training cut":       {"open", "cut", "close", "accept", "publish", "end"},
		"training charged":   {"open", "cut", "charge", "accept", "publish", "end"},
		"training closed":    {"open", "cut", "charge", "close", "accept", "abandon", "publish"},
		"evaluation charged": {"open", "evaluate", "publish", "end"},
		"released":           {"open", "evaluate", "publish", "end", "measure"},
	} {
		for _, name := range commands {
			t.Run(name+" when "+stage, func(t *testing.T) {
				s, e := stateAt(t, "job", stage)
				e.data = encoded(t, strings.Replace(good[name].command, "@b1", "@b9", 1))
				if err := refused(t, s, e, ""); !errors.Is(err, state.ErrStale) {
					t.Errorf("%v is not ErrStale", err)
				}
			})
		}
	}
}

func TestAnAbandonedEvaluationPublishesNothing(t *testing.T) {
	s, e := stateAt(t, "job", "evaluation open")
	e.data = encoded(t, `abandon_round { key { job: "purchase" round: 3 attempt: 1 } reason: "too few" term: 2 }`)
	s, err := e.apply(s)
	if err != nil {
		t.Fatal(err)
	}
	e.index++
	e.data = encoded(t, good["publish"].command)
	refused(t, s, e, "no evaluation round measured these variants")
}

func TestBadFoundations(t *testing.T) {
	const g = `genesis { cluster: "shop" root: "root" time_ms: 1 coordinators { name: "ada" address: "a:1" chain: "ada's" } coordinators { name: "bob" address: "b:1" chain: "bob's" } }`
	for _, c := range []struct{ old, spoilt, want string }{
		{`cluster: "shop"`, ``, `federation name ""`},
		{`"shop"`, `"My Shop"`, `federation name "My Shop"`},
		{`root: "root"`, ``, `without root or coordinators`},
		{`time_ms: 1`, ``, `time 0 ms`},
		{`name: "ada"`, ``, `coordinator name ""`},
		{`name: "bob"`, `name: "Bob"`, `coordinator name "Bob"`},
		{`name: "bob"`, `name: "ada"`, `coordinator ada is named twice`},
		{`address: "b:1"`, ``, `address of 0 bytes`},
		{`b:1`, strings.Repeat("b", 256), `address of 256 bytes`},
		{`chain: "bob's"`, ``, `coordinator bob without certificates`},
		{`chain: "bob's"`, `chain: "bob's" chain: ""`, `coordinator bob without certificates`},
		{g, `genesis { cluster: "shop" root: "root" time_ms: 1 }`, `without root or coordinators`},
	} {
		refused(t, state.New(), entry{1, 1, encoded(t, strings.Replace(g, c.old, c.spoilt, 1))}, c.want)
	}
	if _, err := (entry{1, 1, encoded(t, g)}).apply(state.New()); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// Every field of a job's specification is held to its range, and the error names it.
func TestBadJobs(t *testing.T) {
	type spec = choirv1.JobSpec
	for _, c := range []struct {
		want  string
		spoil func(*spec)
	}{
		{`job name ""`, func(s *spec) { s.Name = "" }},
		{`job name "a/b"`, func(s *spec) { s.Name = "a/b" }},
		{`model name "Buyer"`, func(s *spec) { s.Model = "Buyer" }},
		{`parse schema`, func(s *spec) { s.Schema = nil }},
		{`label "sex"`, func(s *spec) { s.Schema = []byte(strings.Replace(schema, `"label":"buys"`, `"label":"sex"`, 1)) }},
		{`label buys is a category column, want a boolean one`, func(s *spec) {
			s.Schema = []byte(strings.Replace(schema, `"buys","kind":"boolean"`, `"buys","kind":"category","categories":["no","yes"]`, 1))
		}},
		{`column age holds ids, for which the model has no embedding`, func(s *spec) {
			s.Schema = []byte(strings.Replace(schema, `"age","kind":"numeric"`, `"age","kind":"id","min":1`, 1))
		}},
		{`hidden: number of layers is 0`, func(s *spec) { s.Hidden = nil }},
		{`hidden: number of layers is 9`, func(s *spec) { s.Hidden = slices.Repeat([]uint32{1}, 9) }},
		{`hidden layer 1 of width 0`, func(s *spec) { s.Hidden[0] = 0 }},
		{`hidden layer 1 of width`, func(s *spec) { s.Hidden[0] = math.MaxUint32 }},
		{`parameters, at most 2^28`, func(s *spec) { s.Hidden = []uint32{1 << 14, 1 << 14, 1 << 14} }},
		{`rounds is 0`, func(s *spec) { s.Rounds = 0 }},
		{`rounds is 1.8446744073709552e+19`, func(s *spec) { s.Rounds = math.MaxUint64 }},
		{`local_epochs is 1001`, func(s *spec) { s.LocalEpochs = 1001 }},
		{`batch is 0`, func(s *spec) { s.Batch = 0 }},
		{`batch is 65537`, func(s *spec) { s.Batch = 65537 }},
		{`learning_rate is 0`, func(s *spec) { s.LearningRate = 0 }},
		{`learning_rate is NaN`, func(s *spec) { s.LearningRate = math.NaN() }},
		{`learning_rate is +Inf`, func(s *spec) { s.LearningRate = math.Inf(1) }},
		{`range is 0`, func(s *spec) { s.Range = 0 }},
		{`range is NaN`, func(s *spec) { s.Range = math.NaN() }},
		{`clip is -1`, func(s *spec) { s.Clip = -1 }},
		{`clip is NaN`, func(s *spec) { s.Clip = math.NaN() }},
		{`weight_cap is 0`, func(s *spec) { s.WeightCap = 0 }},
		{`weight_cap is -1`, func(s *spec) { s.WeightCap = -1 }},
		{`weight_cap is 1048577`, func(s *spec) { s.WeightCap = 1<<20 + 1 }},
		{`minimum_cohort is 0`, func(s *spec) { s.MinimumCohort = 0 }},
		{`minimum_cohort is 65537`, func(s *spec) { s.MinimumCohort = 65537 }},
		{`goal is 65537`, func(s *spec) { s.Goal = 65537 }},
		{`goal 1 is below minimum_cohort 2`, func(s *spec) { s.Goal = 1 }},
		{`duration_ms is 99`, func(s *spec) { s.DurationMs = 99 }},
		{`duration_ms is 604800001`, func(s *spec) { s.DurationMs = 604800001 }},
		{`max_attempts is 0`, func(s *spec) { s.MaxAttempts = 0 }},
		{`max_attempts is 1001`, func(s *spec) { s.MaxAttempts = 1001 }},
		{`gate_int8_ppm is -1`, func(s *spec) { s.GateInt8Ppm = -1 }},
		{`gate_student_ppm is 1000001`, func(s *spec) { s.GateStudentPpm = 1000001 }},
		{`student_hidden is 16385`, func(s *spec) { s.StudentHidden = 16385 }},
		{`student_rows is 4194305`, func(s *spec) { s.StudentRows = 1<<22 + 1 }},
		{`student_temperature is 0`, func(s *spec) { s.StudentTemperature = 0 }},
		{`student_epochs is 1001`, func(s *spec) { s.StudentEpochs = 1001 }},
		{`wait_ms is 86400001`, func(s *spec) { s.WaitMs = 86400001 }},
		{`server_rate is -1`, func(s *spec) { s.ServerRate = -1 }},
		{`student_rate is NaN`, func(s *spec) { s.StudentRate = math.NaN() }},
		{`over_selection_percent is 401`, func(s *spec) { s.OverSelectionPercent = 401 }},
		{`over_selection_percent is 1, but goal 0 invites every node`, func(s *spec) { s.Goal, s.OverSelectionPercent = 0, 1 }},
		{`minimum_examples is -1`, func(s *spec) { s.MinimumExamples = -1 }},
		{`minimum_examples is 1048577`, func(s *spec) { s.MinimumExamples = 1<<20 + 1 }},
		{`where: number of labels is 65, want 0 to 64`, func(s *spec) { s.Where = slices.Repeat(s.Where, 65) }},
		{`where: label of 0 bytes, want 1 to 255`, func(s *spec) { s.Where[0].Label = "" }},
		{`where: label of 256 bytes, want 1 to 255`, func(s *spec) { s.Where[0].Label = strings.Repeat("x", 256) }},
		{`where: label region is named twice`, func(s *spec) { s.Where = slices.Repeat(s.Where, 2) }},
		{`where: label region has 0 values`, func(s *spec) { s.Where[0].Values = nil }},
		{`where: label region has 1025 values`, func(s *spec) { s.Where[0].Values = slices.Repeat([]string{"1"}, 1025) }},
		{`where: value of label region of 0 bytes`, func(s *spec) { s.Where[0].Values = []string{"1", ""} }},
		{`validation: digest of 3 bytes`, func(s *spec) { s.Validation = []byte("csv") }},
	} {
		t.Run(c.want, func(t *testing.T) {
			s, e := stateAt(t, "founding", "")
			j := usual()
			j.Name, j.Model, j.Hidden, j.MinimumCohort = "purchase", "buyer", []uint32{8}, 2
			j.Goal, j.StudentRows = 3, 16
			j.Where = []*choirv1.LabelMatch{{Label: "region", Values: []string{"1"}}}
			if err := state.CheckSpec(j); err != nil {
				t.Fatal(err)
			}
			c.spoil(j)
			if err := state.CheckSpec(j); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("CheckSpec: %v", err)
			}
			data, err := state.Encode(&choirv1.Command{Body: &choirv1.Command_SubmitJob{SubmitJob: &choirv1.SubmitJob{Spec: j, TimeMs: 1}}})
			if err != nil {
				t.Fatal(err)
			}
			e.data = data
			refused(t, s, e, c.want)
		})
	}
	s, e := stateAt(t, "job", "submitted")
	e.data = encoded(t, `submit_job { time_ms: 1 }`)
	refused(t, s, e, "no specification")
	e.data = encoded(t, `submit_job { spec { name: "purchase" model: "buyer" minimum_cohort: 2 hidden: 8 } time_ms: 1 }`)
	refused(t, s, e, "job purchase exists already")
	e.data = encoded(t, `submit_job { spec { name: "other" model: "buyer" minimum_cohort: 2 hidden: 8 } }`)
	refused(t, s, e, "time 0 ms")
}
