// SPDX-License-Identifier: Apache-2.0
// Call a server in each way that gRPC has, and print the results as one JSON object, a member for each way.
//
// Arguments: a JSON object with the members address, protos (a directory), key, ca (a file, or null for plain text),
// calls (names of functions below).  The packages are found in NODE_PATH.

"use strict";

const fs = require("fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const plan = JSON.parse(process.argv[2]);

const files = ["inference.proto", "management.proto", "grpc_predict_v2.proto", "grpc/health/v1/health.proto",
  "grpc/reflection/v1/reflection.proto"];
const definition = loader.loadSync(files, { includeDirs: [plan.protos], keepCase: true });
const names = grpc.loadPackageDefinition(definition);
const serve = names.org.pytorch.serve.grpc;

const credentials = plan.ca
  ? grpc.credentials.createSsl(fs.readFileSync(plan.ca))
  : grpc.credentials.createInsecure();

const GZIP = { "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip };

function client(kind, options = {}) {
  return new kind(plan.address, credentials, options);
}

const inference = client(serve.inference.InferenceAPIsService);

function shown(key = plan.key) {
  const metadata = new grpc.Metadata();
  if (key !== null) metadata.set("authorization", `Bearer ${key}`);
  return metadata;
}

function within(seconds) {
  return { deadline: Date.now() + 1000 * seconds };
}

// What became of a unary call: the response, or the code and text of the error, with the call itself.
function unary(stub, method, request, metadata = shown(), options = within(30), begun = () => {}) {
  return new Promise((resolve) => {
    const call = stub[method](request, metadata, options, (error, response) => {
      resolve(error ? { code: error.code, details: error.details } : { code: grpc.status.OK, response });
    });
    begun(call);
  });
}

// What became of a call with a stream of responses.
function responses(call) {
  return new Promise((resolve) => {
    const found = [];
    let failure = null;
    call.on("data", (response) => found.push(response));
    call.on("error", (error) => (failure = { code: error.code, details: error.details }));
    call.on("status", (status) => resolve({ code: status.code, ...failure, responses: found }));
  });
}

function predictions(text, model = "m") {
  return { model_name: model, input: { data: Buffer.from(text) } };
}

async function predict(text, stub = inference, ...rest) {
  const result = await unary(stub, "Predictions", predictions(text), ...rest);
  return result.response ? { code: 0, text: result.response.prediction.toString() } : result;
}

const calls = {
  unary: () => predict("hello"),

  unknownModel: () => unary(inference, "Predictions", predictions("x", "absent")),

  // The handler raises.
  fails: async () => (await predict("fail")).code,

  // All at once, on one connection.
  many: async () => {
    const texts = Array.from({ length: 200 }, (_, i) => `number ${i}`);
    const results = await Promise.all(texts.map((text) => predict(text)));
    return results.filter((result, i) => result.text === texts[i]).length;
  },

  large: async () => {
    const text = "x".repeat(3 << 20);
    return (await predict(text)).text === text;
  },

  tooLarge: () => predict("x".repeat(8 << 20)),

  stream: async () => {
    const result = await responses(inference.StreamPredictions(predictions("stream 5"), shown(), within(30)));
    return { code: result.code, texts: result.responses.map((each) => each.prediction.toString()) };
  },

  streamOfOne: async () => {
    const result = await responses(inference.StreamPredictions(predictions("one"), shown(), within(30)));
    return { code: result.code, texts: result.responses.map((each) => each.prediction.toString()) };
  },

  // A sequence, and in it a request whose error is a response.
  bidirectional: async () => {
    const call = inference.StreamPredictions2(shown(), within(30));
    const result = responses(call);
    for (const [number, model] of [[1, "adder"], [2, "adder"], [3, "absent"], [4, "adder"]]) {
      call.write({ ...predictions(`${number}`, model), sequence_id: `js-${process.pid}` });
    }
    call.end();
    const { code, responses: found } = await result;
    const sums = found.filter((each) => !each.status).map((each) => each.prediction.toString());
    return { code, sums, errors: found.filter((each) => each.status).map((each) => each.status.code) };
  },

  deadline: () => predict("sleep 30", inference, shown(), within(0.3)),

  // The worker is free afterwards: it is the only one.
  cancel: async () => {
    const cancelled = await predict("sleep 30", inference, shown(), within(30), (call) =>
      setTimeout(() => call.cancel(), 300)
    );
    const began = Date.now();
    const after = await predict("after");
    return { code: cancelled.code, after, seconds: (Date.now() - began) / 1000 };
  },

  cancelStream: async () => {
    const call = inference.StreamPredictions(predictions("stream 100000"), shown(), within(30));
    call.once("data", () => call.cancel());
    const { code } = await responses(call);
    return { code, after: await predict("after") };
  },

  gzip: async () => {
    const text = "compressible ".repeat(10000);
    const stub = client(serve.inference.InferenceAPIsService, GZIP);
    const found = await predict(text, stub);
    stub.close();
    return found.text === text;
  },

  noKey: () => predict("x", inference, shown(null)),

  wrongKey: () => predict("x", inference, shown("wrong")),

  unknownMethod: () =>
    new Promise((resolve) => {
      const path = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Nothing";
      const bytes = (value) => value;
      inference.makeUnaryRequest(path, bytes, bytes, Buffer.alloc(0), shown(), within(30), (error) =>
        resolve({ code: error && error.code })
      );
    }),

  // Without a key, as Kubernetes asks: states, or codes below zero.
  health: async () => {
    const stub = client(names.grpc.health.v1.Health);
    const check = async (service) => {
      const { code, response } = await unary(stub, "Check", { service }, shown(null));
      return response ? response.status : -code;
    };
    const found = { ready: await check(""), live: await check("liveness"), absent: await check("absent") };
    const call = stub.Watch({ service: "" }, shown(null));
    found.watched = (await new Promise((resolve) => call.once("data", resolve))).status;
    const end = responses(call);
    call.cancel();
    found.end = (await end).code;
    stub.close();
    return found;
  },

  // Which services there are, in which file one is, and an error in band.
  reflection: async () => {
    const stub = client(names.grpc.reflection.v1.ServerReflection);
    const call = stub.ServerReflectionInfo(shown(), within(30));
    const result = responses(call);
    const service = "org.pytorch.serve.grpc.inference.InferenceAPIsService";
    call.write({ list_services: "" });
    call.write({ file_containing_symbol: service });
    call.write({ file_containing_symbol: "absent" });
    call.end();
    const [services, file, absent] = (await result).responses;
    stub.close();
    return {
      served: services.list_services_response.service.some((each) => each.name === service),
      file: file.file_descriptor_response.file_descriptor_proto[0].includes("InferenceAPIsService"),
      absent: absent.error_response.error_code,
    };
  },

  openInference: async () => {
    const stub = client(names.inference.GRPCInferenceService);
    const live = await unary(stub, "ServerLive", {});
    const model = await unary(stub, "ModelReady", { name: "m" });
    stub.close();
    return { live: live.response, model: model.response };
  },
};

async function main() {
  const results = {};
  for (const name of plan.calls) results[name] = await calls[name]();
  inference.close();
  process.stdout.write(JSON.stringify(results) + "\n");
}

main().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
  }
);
