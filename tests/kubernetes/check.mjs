// Holds rendered manifests against the schema of what they are: by kubernetes-models' validation, which knows values, and by
// its types, in which a key that does not exist is an error. And whether the objects find each other.
//
//     node check.mjs DASHBOARDS RENDERED…

import assert from "node:assert";
import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseAllDocuments } from "yaml";

const HERE = dirname(fileURLToPath(import.meta.url));
const [dashboards, ...files] = process.argv.slice(2);

// apiVersion → where its models are
const MODULES = {
  v1: "kubernetes-models/v1",
  "apps/v1": "kubernetes-models/apps/v1",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
};
// The API takes a ConfigMap of so much at the most.
const CONFIG_MAP = 1 << 20;

for (const file of files) {
  const objects = parseAllDocuments(readFileSync(file, "utf8"))
    .map((document) => {
      assert.deepEqual(document.errors, []);
      return document.toJS();
    })
    .filter(Boolean);
  await validate(objects);
  typed(file, objects);
  related(objects);
  const sizes = objects.filter(({ kind }) => kind === "ConfigMap").map(size);
  console.log(`${file.split("/").at(-1)}: ${objects.length} objects, valid; the largest ConfigMap has ${Math.max(...sizes)} octets`);
}

async function validate(objects) {
  for (const object of objects) {
    const module = await import(MODULES[object.apiVersion]);
    new module[object.kind](object).validate();
  }
}

// A literal of a type may not have keys that the type has not.
function typed(file, objects) {
  const lines = objects.map(({ apiVersion, kind, ...rest }, index) => {
    const value = JSON.stringify({ apiVersion, kind, ...rest });
    return `import type { I${kind} as T${index} } from ${JSON.stringify(MODULES[apiVersion])};\nexport const o${index}: T${index} = ${value};\n`;
  });
  const source = join(HERE, `${file.split("/").at(-1)}.ts`);
  writeFileSync(source, lines.join(""));
  const flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"];
  const { status, stdout } = spawnSync("node", [join(HERE, "node_modules/typescript/bin/tsc"), ...flags, source], { encoding: "utf8" });
  assert.equal(status, 0, stdout);
}

// What one object says of another holds.
function related(objects) {
  const of = (kind) => objects.filter((object) => object.kind === kind);
  const [daemonSet] = of("DaemonSet");
  const [service] = of("Service");
  const pod = daemonSet.spec.template;
  const ports = pod.spec.containers[0].ports.map(({ name }) => name);

  assert.deepEqual(pick(pod.metadata.labels, daemonSet.spec.selector.matchLabels), daemonSet.spec.selector.matchLabels);
  assert.deepEqual(pick(pod.metadata.labels, service.spec.selector), service.spec.selector);
  for (const { targetPort } of service.spec.ports) assert(ports.includes(targetPort), targetPort);
  assert(of("ServiceAccount").some(({ metadata }) => metadata.name === pod.spec.serviceAccountName));
  for (const { configMap } of pod.spec.volumes.filter(({ configMap }) => configMap)) {
    assert(of("ConfigMap").some(({ metadata }) => metadata.name === configMap.name), configMap.name);
  }
  const { startupProbe, readinessProbe, livenessProbe, env = [] } = pod.spec.containers[0];
  const guarded = env.some(({ name }) => name === "DARKPORT_WEB_CONFIG_FILE");
  for (const probe of [startupProbe, readinessProbe, livenessProbe]) {
    assert.deepEqual([guarded, !guarded], ["exec", "httpGet"].map((key) => key in probe), "who asks whether it is well");
  }
  const mounts = pod.spec.containers[0].volumeMounts.map(({ name }) => name);
  assert.deepEqual(mounts.toSorted(), pod.spec.volumes.map(({ name }) => name).toSorted());
  const [namespace] = of("Namespace");
  for (const object of objects) {
    assert(size(object) < CONFIG_MAP, `${object.kind} ${object.metadata.name}`);
    if (object.kind !== "Namespace") assert.equal(object.metadata.namespace, namespace.metadata.name);
  }
  for (const { spec } of of("ServiceMonitor")) {
    assert.deepEqual(pick(service.metadata.labels, spec.selector.matchLabels), spec.selector.matchLabels);
    for (const { port } of spec.endpoints) assert(service.spec.ports.some(({ name }) => name === port), port);
  }
  const shown = of("ConfigMap").filter(({ metadata }) => metadata.labels?.grafana_dashboard === "1");
  if (of("ServiceMonitor").length > 0) {
    const names = readdirSync(dashboards).filter((name) => name.endsWith(".json"));
    assert.deepEqual(shown.flatMap(({ data }) => Object.keys(data)).sort(), names.sort());
  }
  for (const { data } of shown) {
    for (const [name, text] of Object.entries(data)) {
      assert.deepEqual(JSON.parse(text), JSON.parse(readFileSync(join(dashboards, name), "utf8")));
    }
  }
}

function pick(labels, wanted) {
  return Object.fromEntries(Object.keys(wanted).map((key) => [key, labels[key]]));
}

function size(object) {
  return Buffer.byteLength(JSON.stringify(object));
}
