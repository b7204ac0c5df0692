package cn.govbus.bench;

import java.io.BufferedWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.avro.Schema;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.Stores;

/**
 * Counts the records of a topic by some of their fields and the day, in a RocksDB store with its changelog.
 *
 * <p>The counts are kept where the record was read (one store a partition), so nothing is sent through a repartition
 * topic: the quickest way Kafka Streams has. It speaks the protocol of bench/peers/protocol.py.
 */
public final class Peer {
  static final String STORE = "cells";

  public static void main(String[] words) throws Exception {
    Map<String, String> given = options(words);
    long count = Long.parseLong(given.get("count"));
    AtomicLong counted = new AtomicLong();
    try (KafkaStreams streams = new KafkaStreams(topology(given, counted, count).build(), settings(given))) {
      streams.setUncaughtExceptionHandler(
          error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(70);
            return null;
          });
      say("\"began\": " + seconds());
      streams.start();
      await(counted, count, given);
      say("\"durable\": " + seconds());
      dump(streams, Path.of(given.get("dump")));
      say("\"dumped\": true");
      Thread.sleep(Long.MAX_VALUE);
    }
  }

  static StreamsBuilder topology(Map<String, String> given, AtomicLong counted, long count) throws Exception {
    Schema schema = new Schema.Parser().parse(Path.of(given.get("schema")).toFile());
    String[] fields = given.get("fields").split(",");
    StreamsBuilder builder = new StreamsBuilder();
    builder.addStateStore(
        Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.String(), Serdes.Long())
            .withCachingEnabled());
    builder.stream(given.get("topic"), Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
        .process(() -> new Count(schema, fields, counted, count), STORE);
    return builder;
  }

  static Properties settings(Map<String, String> given) {
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, given.get("name"));
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.get("kafka"));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, given.get("home"));
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, given.get("threads"));
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, given.get("guarantee"));
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put("auto.offset.reset", "earliest");
    return settings;
  }

  /** Says four times a second how many are counted; returns when all are and their offsets are committed. */
  static void await(AtomicLong counted, long count, Map<String, String> given) throws Exception {
    while (counted.get() < count) {
      say("\"n\": " + counted.get() + ", \"at\": " + seconds());
      Thread.sleep(250);
    }
    say("\"n\": " + counted.get() + ", \"at\": " + seconds());
    try (Admin admin = Admin.create(Map.of("bootstrap.servers", given.get("kafka")))) {
      while (committed(admin, given.get("name")) < count) {
        Thread.sleep(20);
      }
    }
  }

  static long committed(Admin admin, String group) throws Exception {
    return admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().values().stream()
        .mapToLong(OffsetAndMetadata::offset)
        .sum();
  }

  static void dump(KafkaStreams streams, Path file) throws Exception {
    var wanted = StoreQueryParameters.fromNameAndType(STORE, QueryableStoreTypes.<String, Long>keyValueStore());
    try (BufferedWriter out = Files.newBufferedWriter(file, StandardCharsets.UTF_8);
        KeyValueIterator<String, Long> all = streams.store(wanted).all()) {
      while (all.hasNext()) {
        var cell = all.next();
        out.write(cell.key + "\t" + cell.value + "\n");
      }
    }
  }

  static void say(String fields) {
    System.out.println("{" + fields + "}");
    System.out.flush();
  }

  static String seconds() {
    return String.format(java.util.Locale.ROOT, "%.3f", System.currentTimeMillis() / 1000.0);
  }

  static Map<String, String> options(String[] words) {
    Map<String, String> given = new HashMap<>();
    for (int i = 0; i + 1 < words.length; i += 2) {
      given.put(words[i].substring(2), words[i + 1]);
    }
    return given;
  }
}
