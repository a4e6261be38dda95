package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"choir.example/model/data"
)

// predict waits until a node serves the release and asks it over HTTP.
func (d *demo) predict(ctx context.Context) error {
	d.progress("asking a node for a prediction")
	var name string
	select {
	case name = <-d.adopted:
	case <-ctx.Done():
		return fmt.Errorf("wait for a node to serve the release: %w", ctx.Err())
	}
	url := "http://" + d.f.Node(name).Address() + "/v2/models/" + d.spec.Model + "/infer"
	body, err := inferBody(d.schema, pool(d.parts).Held[0])
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answer, err := infer(ctx, client, url, body)
	if err != nil {
		return err
	}
	d.result.Request, d.result.Answer = string(body), string(answer)
	var reply struct {
		Version    string `json:"model_version"`
		Parameters struct {
			Variant string `json:"variant"`
		} `json:"parameters"`
		Outputs []struct {
			Data []float64 `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(answer, &reply); err != nil || len(reply.Outputs) != 1 || len(reply.Outputs[0].Data) != 1 {
		return fmt.Errorf("prediction is not as it should be: %s", answer)
	}
	d.result.Prediction = DemoPrediction{ModelVersion: reply.Version, Probability: reply.Outputs[0].Data[0]}
	d.result.HTTPVariant = reply.Parameters.Variant
	d.result.HTTP, err = latencyHTTP(ctx, client, url, body)
	return err
}

// latencyHTTP times one request after the other on one connection.
func latencyHTTP(ctx context.Context, client *http.Client, url string, body []byte) (Latency, error) {
	times := make([]time.Duration, 0, 500)
	for range cap(times) {
		start := time.Now()
		if _, err := infer(ctx, client, url, body); err != nil {
			return Latency{}, err
		}
		times = append(times, time.Since(start))
	}
	return quantiles(times), nil
}

// inferBody is a request of the Open Inference Protocol for one row, by the schema's names.
func inferBody(schema *data.Schema, row data.Row) ([]byte, error) {
	type input struct {
		Name     string `json:"name"`
		Datatype string `json:"datatype"`
		Shape    []int  `json:"shape"`
		Data     []any  `json:"data"`
	}
	var inputs []input
	for i, c := range schema.Columns {
		switch x := row[i]; {
		case c.Name == schema.Label || x != x:
		case c.Kind == data.Numeric:
			inputs = append(inputs, input{c.Name, "FP64", []int{1}, []any{x}})
		case c.Kind == data.Category:
			inputs = append(inputs, input{c.Name, "BYTES", []int{1}, []any{c.Categories[int(x)]}})
		default:
			inputs = append(inputs, input{c.Name, "BOOL", []int{1}, []any{x == 1}})
		}
	}
	b, err := json.Marshal(map[string]any{"inputs": inputs})
	if err != nil {
		return nil, fmt.Errorf("encode prediction request: %w", err)
	}
	return b, nil
}

// infer posts one request and returns the reply's body.
func infer(ctx context.Context, client *http.Client, url string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask for a prediction: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for a prediction: %w", err)
	}
	defer resp.Body.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(resp.Body); err != nil {
		return nil, fmt.Errorf("ask for a prediction: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for a prediction: %s: %s", resp.Status, out.String())
	}
	return out.Bytes(), nil
}
