// SPDX-License-Identifier: Apache-2.0

// Call a server in each way that gRPC has, and print the results as one JSON object, a member for each way.
//
// The argument is a JSON object with the members address, descriptors (a file), key, ca (a file, or empty for plain
// text) and calls (names of functions below).  There is no generated code: messages are made from the descriptors.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const inference = "org.pytorch.serve.grpc.inference"

type plan struct {
	Address, Descriptors, Key, CA string
	Calls                         []string
}

type caller struct {
	connection *grpc.ClientConn
	files      *protoregistry.Files
	key        string
}

type result = map[string]interface{}

// Make a message of a type, with the value of each field in JSON's types.
func (c *caller) message(name string, fields result) *dynamicpb.Message {
	descriptor, err := c.files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		panic(err)
	}
	message := dynamicpb.NewMessage(descriptor.(protoreflect.MessageDescriptor))
	for name, value := range fields {
		field := message.Descriptor().Fields().ByName(protoreflect.Name(name))
		if field.IsMap() {
			entries := message.Mutable(field).Map()
			for key, content := range value.(map[string]string) {
				entries.Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfBytes([]byte(content)))
			}
		} else {
			message.Set(field, protoreflect.ValueOfString(value.(string)))
		}
	}
	return message
}

func get(message *dynamicpb.Message, name string) protoreflect.Value {
	return message.Get(message.Descriptor().Fields().ByName(protoreflect.Name(name)))
}

func (c *caller) prediction(text, model, sequence string) *dynamicpb.Message {
	fields := result{"model_name": model, "input": map[string]string{"data": text}}
	if sequence != "" {
		fields["sequence_id"] = sequence
	}
	return c.message(inference+".PredictionsRequest", fields)
}

func (c *caller) with(parent context.Context) context.Context {
	if c.key == "" {
		return parent
	}
	return metadata.AppendToOutgoingContext(parent, "authorization", "Bearer "+c.key)
}

func within(seconds float64) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Duration(seconds*float64(time.Second)))
}

func ended(err error) result {
	found := status.Convert(err)
	if err == io.EOF {
		found = status.New(codes.OK, "")
	}
	return result{"code": int(found.Code()), "details": found.Message()}
}

func (c *caller) predictIn(ctx context.Context, text, model string, options ...grpc.CallOption) result {
	response := c.message(inference+".PredictionResponse", nil)
	path := "/" + inference + ".InferenceAPIsService/Predictions"
	if err := c.connection.Invoke(c.with(ctx), path, c.prediction(text, model, ""), response, options...); err != nil {
		return ended(err)
	}
	return result{"code": 0, "text": string(get(response, "prediction").Bytes())}
}

func (c *caller) predict(text string, options ...grpc.CallOption) result {
	ctx, cancel := within(30)
	defer cancel()
	return c.predictIn(ctx, text, "m", options...)
}

// Begin a call with a stream of responses.
func (c *caller) stream(ctx context.Context, path string, client bool) grpc.ClientStream {
	description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: client}
	stream, err := c.connection.NewStream(c.with(ctx), description, path)
	if err != nil {
		panic(err)
	}
	return stream
}

func send(stream grpc.ClientStream, messages ...proto.Message) {
	for _, message := range messages {
		if err := stream.SendMsg(message); err != nil {
			panic(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		panic(err)
	}
}

// Receive responses until the call ends, or what is done with one says that it is enough.
func (c *caller) receive(stream grpc.ClientStream, name string, each func(*dynamicpb.Message) bool) result {
	for {
		response := c.message(name, nil)
		if err := stream.RecvMsg(response); err != nil {
			return ended(err)
		}
		if !each(response) {
			return nil
		}
	}
}

func (c *caller) parts(text string, each func(string) bool) result {
	ctx, cancel := within(30)
	defer cancel()
	stream := c.stream(ctx, "/"+inference+".InferenceAPIsService/StreamPredictions", false)
	send(stream, c.prediction(text, "m", ""))
	var texts []string
	found := c.receive(stream, inference+".PredictionResponse", func(response *dynamicpb.Message) bool {
		texts = append(texts, string(get(response, "prediction").Bytes()))
		if !each(texts[len(texts)-1]) {
			cancel()
		}
		return true
	})
	found["texts"] = texts
	return found
}

var calls = map[string]func(*caller) interface{}{
	"unary": func(c *caller) interface{} { return c.predict("hello") },

	"unknownModel": func(c *caller) interface{} {
		ctx, cancel := within(30)
		defer cancel()
		return c.predictIn(ctx, "x", "absent")
	},

	// The handler raises.
	"fails": func(c *caller) interface{} { return c.predict("fail")["code"] },

	// All at once, on one connection.
	"many": func(c *caller) interface{} {
		var group sync.WaitGroup
		right := make(chan bool, 200)
		for i := 0; i < 200; i++ {
			group.Add(1)
			go func(text string) {
				defer group.Done()
				if c.predict(text)["text"] == text {
					right <- true
				}
			}(fmt.Sprintf("number %d", i))
		}
		group.Wait()
		return len(right)
	},

	"large": func(c *caller) interface{} {
		text := strings.Repeat("x", 3<<20)
		return c.predict(text)["text"] == text
	},

	"tooLarge": func(c *caller) interface{} { return c.predict(strings.Repeat("x", 8<<20)) },

	"stream": func(c *caller) interface{} { return c.parts("stream 5", func(string) bool { return true }) },

	"streamOfOne": func(c *caller) interface{} { return c.parts("one", func(string) bool { return true }) },

	// A sequence, and in it a request whose error is a response.
	"bidirectional": func(c *caller) interface{} {
		ctx, cancel := within(30)
		defer cancel()
		stream := c.stream(ctx, "/"+inference+".InferenceAPIsService/StreamPredictions2", true)
		name := fmt.Sprintf("go-%d", os.Getpid())
		send(stream, c.prediction("1", "adder", name), c.prediction("2", "adder", name),
			c.prediction("3", "absent", name), c.prediction("4", "adder", name))
		sums, errors := []string{}, []int64{}
		found := c.receive(stream, inference+".PredictionResponse", func(response *dynamicpb.Message) bool {
			field := response.Descriptor().Fields().ByName("status")
			if response.Has(field) {
				inner := response.Get(field).Message()
				errors = append(errors, inner.Get(inner.Descriptor().Fields().ByName("code")).Int())
			} else {
				sums = append(sums, string(get(response, "prediction").Bytes()))
			}
			return true
		})
		found["sums"], found["errors"] = sums, errors
		return found
	},

	"deadline": func(c *caller) interface{} {
		ctx, cancel := within(0.3)
		defer cancel()
		return c.predictIn(ctx, "sleep 30", "m")
	},

	// The worker is free afterwards: it is the only one.
	"cancel": func(c *caller) interface{} {
		ctx, cancel := within(30)
		time.AfterFunc(300*time.Millisecond, cancel)
		cancelled := c.predictIn(ctx, "sleep 30", "m")
		began := time.Now()
		after := c.predict("after")
		return result{"code": cancelled["code"], "after": after, "seconds": time.Since(began).Seconds()}
	},

	"cancelStream": func(c *caller) interface{} {
		found := c.parts("stream 100000", func(string) bool { return false })
		return result{"code": found["code"], "after": c.predict("after")}
	},

	// Which services there are, in which file one is, and an error in band.
	"reflection": func(c *caller) interface{} {
		ctx, cancel := within(30)
		defer cancel()
		const service, name = inference + ".InferenceAPIsService", "grpc.reflection.v1.ServerReflection"
		stream := c.stream(ctx, "/"+name+"/ServerReflectionInfo", true)
		send(stream, c.message(name+"Request", result{"list_services": ""}),
			c.message(name+"Request", result{"file_containing_symbol": service}),
			c.message(name+"Request", result{"file_containing_symbol": "absent"}))
		found, inner := result{"served": false}, func(response *dynamicpb.Message, field string) protoreflect.Message {
			return get(response, field).Message()
		}
		c.receive(stream, name+"Response", func(response *dynamicpb.Message) bool {
			field := response.WhichOneof(response.Descriptor().Oneofs().ByName("message_response"))
			switch field.Name() {
			case "list_services_response":
				listed := inner(response, "list_services_response")
				services := listed.Get(listed.Descriptor().Fields().ByName("service")).List()
				for i := 0; i < services.Len(); i++ {
					each := services.Get(i).Message()
					if each.Get(each.Descriptor().Fields().ByName("name")).String() == service {
						found["served"] = true
					}
				}
			case "file_descriptor_response":
				sent := inner(response, "file_descriptor_response")
				files := sent.Get(sent.Descriptor().Fields().ByName("file_descriptor_proto")).List()
				found["file"] = strings.Contains(string(files.Get(0).Bytes()), "InferenceAPIsService")
			case "error_response":
				refused := inner(response, "error_response")
				found["absent"] = refused.Get(refused.Descriptor().Fields().ByName("error_code")).Int()
			}
			return true
		})
		return found
	},

	"openInference": func(c *caller) interface{} {
		ctx, cancel := within(30)
		defer cancel()
		ask := func(method, field string, fields result) interface{} {
			response := c.message("inference."+method+"Response", nil)
			path := "/inference.GRPCInferenceService/" + method
			if err := c.connection.Invoke(c.with(ctx), path, c.message("inference."+method+"Request", fields), response); err != nil {
				return ended(err)
			}
			return result{field: get(response, field).Bool()}
		}
		live, model := ask("ServerLive", "live", nil), ask("ModelReady", "ready", result{"name": "m"})
		return result{"live": live, "model": model}
	},

	"gzip": func(c *caller) interface{} {
		text := strings.Repeat("compressible ", 10000)
		return c.predict(text, grpc.UseCompressor(gzip.Name))["text"] == text
	},

	"noKey": func(c *caller) interface{} {
		return (&caller{c.connection, c.files, ""}).predict("x")
	},

	"wrongKey": func(c *caller) interface{} {
		return (&caller{c.connection, c.files, "wrong"}).predict("x")
	},

	"unknownMethod": func(c *caller) interface{} {
		ctx, cancel := within(30)
		defer cancel()
		empty := c.message("google.protobuf.Empty", nil)
		return ended(c.connection.Invoke(c.with(ctx), "/"+inference+".InferenceAPIsService/Nothing", empty, empty))
	},

	// Without a key, as Kubernetes asks: states, or codes below zero.
	"health": func(c *caller) interface{} {
		open := &caller{c.connection, c.files, ""}
		ctx, cancel := within(30)
		defer cancel()
		check := func(service string) int {
			request := c.message("grpc.health.v1.HealthCheckRequest", result{"service": service})
			response := c.message("grpc.health.v1.HealthCheckResponse", nil)
			if err := open.connection.Invoke(ctx, "/grpc.health.v1.Health/Check", request, response); err != nil {
				return -int(status.Code(err))
			}
			return int(get(response, "status").Enum())
		}
		found := result{"ready": check(""), "live": check("liveness"), "absent": check("absent")}
		watching, leave := context.WithCancel(ctx)
		stream := open.stream(watching, "/grpc.health.v1.Health/Watch", false)
		send(stream, c.message("grpc.health.v1.HealthCheckRequest", nil))
		name := "grpc.health.v1.HealthCheckResponse"
		end := c.receive(stream, name, func(response *dynamicpb.Message) bool {
			found["watched"] = get(response, "status").Enum()
			leave()
			return true
		})
		found["end"] = end["code"]
		return found
	},
}

func load(path string) *protoregistry.Files {
	content, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(content, &set); err != nil {
		panic(err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		panic(err)
	}
	return files
}

func main() {
	var given plan
	if err := json.Unmarshal([]byte(os.Args[1]), &given); err != nil {
		panic(err)
	}
	security := grpc.WithInsecure()
	if given.CA != "" {
		shown, err := credentials.NewClientTLSFromFile(given.CA, "")
		if err != nil {
			panic(err)
		}
		security = grpc.WithTransportCredentials(shown)
	}
	connection, err := grpc.Dial(given.Address, security)
	if err != nil {
		panic(err)
	}
	defer connection.Close()
	c := &caller{connection, load(given.Descriptors), given.Key}
	results := result{}
	for _, name := range given.Calls {
		results[name] = calls[name](c)
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		panic(err)
	}
}
