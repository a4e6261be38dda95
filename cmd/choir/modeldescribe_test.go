package main

import (
	"encoding/json"
	"testing"

	"choir.example/model"
)

// Every architecture with a name is described: its layers, and what they add up to.
func TestDescribeEveryArchitecture(t *testing.T) {
	for _, name := range model.Architectures() {
		out, errs, code := choir(t, "model", "describe", name, "-o", "json")
		var d description
		if err := json.Unmarshal([]byte(out), &d); code != exitOK || err != nil {
			t.Fatalf("%s: exit code %d, %v: %s", name, code, err, errs)
		}
		parameters, flops := 0, int64(0)
		for _, l := range d.Layers {
			parameters, flops = parameters+l.Parameters, flops+l.FLOPs
		}
		if d.Parameters != parameters || d.FLOPs != flops || parameters == 0 || flops == 0 || d.Bytes != 4*parameters || d.Int8Bytes >= d.Bytes || d.Loss == "" {
			t.Errorf("%s: %+v", name, d)
		}
		if out, _, code = choir(t, "model", "describe", name); code != exitOK || len(out) < 100 {
			t.Errorf("%s for people: exit code %d: %s", name, code, out)
		}
	}
}
