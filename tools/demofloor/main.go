// Command demofloor reads what runs of `choir demo -o json` print, one object each, and fails if one of them, or their
// mean, fell below what it must reach. Its argument is how many runs there must be.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

type score struct{ AUC, Accuracy float64 }

type result struct {
	Seed     uint64
	Seconds  float64
	Metrics  map[string]score
	Variants []struct {
		Name string
		AUC  float64
	}
	Failover struct{ Round, Seconds, Lost, Twice, Receipts, Counted float64 }
	Audit    struct{ Verified bool }
}

func main() {
	runs, err := read(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demofloor: read results:", err)
		os.Exit(1)
	}
	failed := false
	expect := func(ok bool, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if ok {
			fmt.Println("ok  ", text)
			return
		}
		failed = true
		fmt.Println("FAIL", text)
	}
	sum := 0.0
	for _, r := range runs {
		judge(r, expect)
		sum += r.Metrics["federated"].AUC
	}
	want := 1
	if len(os.Args) > 1 {
		want, err = strconv.Atoi(os.Args[1])
	}
	expect(err == nil && len(runs) == want, "%d runs, want %d", len(runs), want)
	expect(sum/float64(len(runs)) >= 0.927, "mean federated AUC %.4f, at least .927", sum/float64(len(runs)))
	if failed {
		os.Exit(1)
	}
}

// read decodes one result after the other.
func read(r io.Reader) (runs []result, err error) {
	for d := json.NewDecoder(r); ; {
		var one result
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return runs, nil
		} else if err != nil {
			return nil, err
		}
		runs = append(runs, one)
	}
}

func judge(r result, expect func(bool, string, ...any)) {
	fed, local, central := r.Metrics["federated"].AUC, r.Metrics["local_mean"].AUC, r.Metrics["central"].AUC
	expect(r.Seconds <= 60, "seed %d: %.1f s, at most 60", r.Seed, r.Seconds)
	expect(fed >= 0.920, "federated AUC %.4f, at least .920", fed)
	expect(fed-local >= 0.015, "%.4f above the mean of local models (%.4f), at least .015", fed-local, local)
	expect(central >= 0.922, "central AUC %.4f, at least .922", central)
	expect(fed-central <= 0.01 && central-fed <= 0.01, "%.4f from central, at most .01", fed-central)
	auc := map[string]float64{}
	for _, v := range r.Variants {
		auc[v.Name] = v.AUC
	}
	expect(near(auc["int8"], auc["float32"], 0.001), "int8 %.4f, within .001 of float32 %.4f", auc["int8"], auc["float32"])
	expect(near(auc["student-int8"], auc["float32"], 0.005), "student-int8 %.4f, within .005 of float32", auc["student-int8"])
	expect(r.Audit.Verified, "the audit log verifies")
	f := r.Failover
	expect(f.Round > 0 && f.Lost == 0 && f.Twice == 0 && f.Receipts == f.Counted && f.Receipts > 0 && f.Seconds <= 3,
		"failover %+v: nothing lost, nothing twice, at most 3 s", f)
}

func near(a, b, d float64) bool { return a-b <= d && b-a <= d }
